"""What is run once before the first step: the micro-batch that needs most memory, then all sizes.

So a setting that does not fit fails in the first minute, not in the third hour, and no rank waits
in a step while another makes ready a kernel that it alone needs. Nothing of it stays: gradients are
thrown away, random states put back, step counts left at zero.
"""

from collections.abc import Container
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import torch

from sbcore.plan.read import StepPlan
from sbcore.train.batches import PackedBatch, pack
from sbcore.train.loop import Trainer
from sbcore.train.memory import (
    MicroBatchFacts,
    explaining_model_memory,
    explaining_out_of_memory,
    largest_micro_batch,
)
from sbcore.train.products import Product, do_again, noted_products, token_counts
from sbcore.train.randomness import random_state, set_random_state
from sbcore.train.sizes import one_of_each_size, packs_of
from sbcore.train.staging import make_moments
from sbcore.train.step import Work, run_micro_batches
from sbcore.types import Barrier


def rehearse(trainer: Trainer, *, known_sizes: Container[int]) -> None:
    """Runs them forward and backward, with the optimizer's moments in place; all ranks take part.

    ``known_sizes`` have been rehearsed before, so kernels for them are there.

    Raises:
        ModelTooLarge: The optimizer's moments did not fit on this rank.
        MicroBatchTooLarge: A micro-batch did not.
    """
    with explaining_model_memory(trainer.stage, rank=trainer.ranks.rank):
        make_moments(trainer.model, trainer.optimizer)
    random = random_state(trainer.ranks.device, rank=trainer.ranks.rank)
    step, _, m = largest_micro_batch(trainer.inputs.plan, lambda tokens: _needs(trainer, tokens))
    _rehearse_largest(trainer, step, m)
    for size, (step, place) in one_of_each_size(trainer.inputs.plan).items():
        if size not in known_sizes:
            _rehearse_size(trainer, step, place)
    if trainer.ranks.device.type == "cuda":
        _rehearse_products(trainer)
    trainer.optimizer.zero_grad(set_to_none=True)
    set_random_state(random, trainer.ranks.device)


def _rehearse_largest(trainer: Trainer, step: int, m: int) -> None:
    plan, ranks = trainer.inputs.plan.step(step), trainer.ranks
    batch = _pack(trainer, plan, plan.batch.micro_batches[ranks.rank][m])
    with _explaining(trainer, MicroBatchFacts(step, ranks.rank, m, batch.lengths)):
        _run(trainer, [batch] * _repeats(trainer, plan), plan)


def _rehearse_size(trainer: Trainer, step: int, place: int) -> None:
    plan, attention = trainer.inputs.plan.step(step), trainer.stage.attention
    packs = packs_of(
        plan.lengths,
        place,
        max_tokens=trainer.inputs.plan.max_tokens,
        max_sequences=trainer.stage.max_sequences,
        covered=attention.top_k * attention.block_size,
    )
    batches = [_pack(trainer, plan, micro) for micro in packs]
    with _explaining(trainer, MicroBatchFacts(step, trainer.ranks.rank, None, batches[-1].lengths)):
        _run(trainer, batches, plan)


def _rehearse_products(trainer: Trainer) -> None:
    """Notes the products of a short and of a long sequence; does them for the plan's sizes."""
    plan, store, found = trainer.inputs.plan, trainer.inputs.store, set[Product]()
    for step, batch in _told_apart(trainer):
        with noted_products(batch.num_tokens, len(batch.labels)) as noted:
            _run(trainer, [batch], plan.step(step))
        found |= noted
    share = float(store.num_target_tokens.sum() / store.lengths.sum())
    do_again(found, token_counts(plan), share=share, device=trainer.ranks.device)


def _told_apart(trainer: Trainer) -> list[tuple[int, PackedBatch]]:
    """Returns the shortest and the longest whose numbers of tokens are no sizes of weights."""
    plan = trainer.inputs.plan
    fixed = {size for weight in trainer.model.parameters() for size in weight.shape}
    batches = [
        (step, _pack(trainer, plan.step(step), (place,)))
        for step, place in one_of_each_size(plan).values()
    ]
    fit = [
        (step, batch)
        for step, batch in batches
        if batch.num_tokens != len(batch.labels)
        and not {batch.num_tokens, len(batch.labels)} & fixed
    ]
    return [fit[0], fit[-1]] if len(fit) > 1 else fit


def _explaining(trainer: Trainer, facts: MicroBatchFacts) -> AbstractContextManager[None]:
    estimate = _estimate_gib(trainer, facts)
    return explaining_out_of_memory(facts, estimate_gib=estimate, stage=trainer.stage)


def _pack(trainer: Trainer, plan: StepPlan, micro: tuple[int, ...]) -> PackedBatch:
    samples = plan.sample_ids[list(micro)].tolist()
    return pack(trainer.inputs.store, samples, micro, trainer.ranks.device)


def _run(trainer: Trainer, batches: list[PackedBatch], plan: StepPlan) -> None:
    top_k, num_layers = trainer.stage.attention.top_k, trainer.inputs.latency.num_layers
    targets = np.full((num_layers, len(plan.lengths)), top_k, dtype=np.int64)
    budgets = [  # step 0 measures coverage too
        trainer.tuner.budgets(targets, batch, step=0) for batch in batches
    ]
    # Where a tuner leaves k0, the host knows the budgets, and other kernels may serve them.
    clamped = [(batch, b) for batch, b in zip(batches, budgets, strict=True) if b.limits]
    batches = batches + [batch for batch, _ in clamped]
    budgets += [replace(b, limits=None, measure=False) for _, b in clamped]
    trainer.clock.start()
    run_micro_batches(
        trainer.model,
        Work(batches, budgets, num_target_tokens=max(len(batches[0].labels), 1)),
        attention=trainer.stage.attention,
        barrier=trainer.stage.topology.barrier,
        recompute=trainer.recompute,
        clock=trainer.clock,
    )
    if trainer.ranks.device.type == "cuda":
        torch.cuda.synchronize()  # what did not fit must be known here


def _repeats(trainer: Trainer, plan: StepPlan) -> int:
    """Returns 2 where gradients of whole layers wait for the step's end, else 1.

    The first micro-batch leaves them, unsharded and float32, and the second needs most beside them.
    """
    waits = trainer.stage.topology.barrier is Barrier.STEP
    return 2 if waits and len(plan.batch.micro_batches[trainer.ranks.rank]) > 1 else 1


def _needs(trainer: Trainer, num_tokens: int) -> float:
    """Returns the measured need of a micro-batch, or its tokens where none was measured."""
    gib = trainer.inputs.latency.memory_gib(np.array([num_tokens]))
    return float(num_tokens) if gib is None else gib


def _estimate_gib(trainer: Trainer, facts: MicroBatchFacts) -> float | None:
    """Returns what the latency profile lets expect, weights and moments included."""
    gib = trainer.inputs.latency.memory_gib(np.array(facts.lengths))
    if gib is None or trainer.ranks.device.type != "cuda":
        return None
    return gib + torch.cuda.memory_allocated() / 2**30
