"""What a micro-batch costs the host under each way to run the layers: the floor of short ones.

torchrun --standalone --nproc-per-node 2 docs/results/host_floor.py Qwen2.5-0.5B 2048 16384
prints a csv: a row for each way and length, milliseconds of wall time of a micro-batch forward and
backward among several in a row, and the loss, which must not depend on the way. Words that are no
numbers choose among the ways by what their names hold.
"""

import csv
import gc
import os
import sys
import time

import numpy as np
import torch
import torch.distributed as dist

from sbcore.config.compute import AttentionConfig
from sbcore.config.shapes import SHAPES
from sbcore.config.training import ModelConfig, ModelShape, TrainConfig
from sbcore.device import device_name
from sbcore.model.assemble import TrainableModel, assemble
from sbcore.model.build import shape_config
from sbcore.train.batches import PackedBatch, to_device
from sbcore.train.clock import make_clock
from sbcore.train.sharding import Ranks, start_ranks
from sbcore.train.step import Work, run_micro_batches
from sbcore.tune.clamp import TargetBudgets
from sbcore.types import Barrier

FEW = {"layers_per_shard": 12, "keep_gathered": True}
COMPILED = {"compile_layers": True, **FEW}
WAYS = {
    "recomputed": {"activation_checkpointing": "full"},
    "plain": {},
    "kept gathered": {"keep_gathered": True},
    "few collectives": FEW,
    "few collectives, recomputed": {"activation_checkpointing": "full", **FEW},
    "few collectives, recomputed but attention": {"activation_checkpointing": "selective", **FEW},
    "compiled, few collectives": COMPILED,
    "compiled, few collectives, recomputed": {"activation_checkpointing": "full", **COMPILED},
    "compiled, few collectives, recomputed but attention": {
        "activation_checkpointing": "selective",
        **COMPILED,
    },
}
NUM_MICRO_BATCHES, NUM_WARMUP, NUM_MEASURED, VOCAB_SIZE = 4, 1, 3, 1192
LONGEST_KEPT = 40_000
"""Tokens beyond which activations do not fit unless they are recomputed."""


def main() -> None:
    """Prints the csv on rank 0."""
    shape, *words = sys.argv[1:]
    lengths = [int(word) for word in words if word.isdigit()]
    parts = [word for word in words if not word.isdigit()]
    ways = {w: WAYS[w] for w in WAYS if not parts or any(part in w for part in parts)}
    ranks = start_ranks(wanted=int(os.environ["WORLD_SIZE"]), device="auto")
    rows = csv.writer(sys.stdout)
    rank0 = ranks.rank == 0
    if rank0:
        head = ("device", "shape", "way", "num_ranks", "tokens", "p20_ms", "ms", "p80_ms", "loss")
        rows.writerow(head)
    for way, train in ways.items():
        made = _model(ranks, shape, TrainConfig.model_validate(train))
        clock = make_clock(made.module, ranks.device)
        kept = "activation_checkpointing" not in train
        for tokens in [n for n in lengths if n <= LONGEST_KEPT or not kept]:
            times, loss = _measure(made, clock, ranks, tokens)
            p20, median, p80 = np.percentile(times, [20, 50, 80]).round(1)
            facts = (device_name(ranks.device), shape, way, ranks.world_size, tokens)
            if rank0:
                rows.writerow((*facts, p20, median, p80, f"{loss:.4f}"))
                sys.stdout.flush()
        del made, clock
        gc.collect()
    dist.destroy_process_group()


def _model(ranks: Ranks, shape: str, train: TrainConfig) -> TrainableModel:
    named = {name: keys for name, keys in SHAPES.items() if name == shape}
    values = ModelShape.model_validate(named.get(shape, {}))  # type: ignore[call-overload]
    on_gpu = ranks.device.type == "cuda"
    return assemble(
        shape_config(values, vocab_size=values.vocab_size or VOCAB_SIZE, max_tokens=2**17),
        ModelConfig(dtype="bfloat16" if on_gpu else "float32"),
        train,
        mesh=ranks.mesh(),
        barrier=Barrier.MICRO,
        weights=None,
        seed=0,
    )


def _measure(made: TrainableModel, clock, ranks: Ranks, tokens: int):  # noqa: ANN001, ANN202
    batches = [_batch(tokens, ranks.device) for _ in range(NUM_MICRO_BATCHES)]
    times, loss = [], torch.zeros(())
    for _ in range(NUM_WARMUP + NUM_MEASURED):
        budgets = [_budgets(made, batch) for batch in batches]
        dist.barrier()
        started = time.perf_counter()
        clock.start()
        loss = run_micro_batches(
            made.module,
            Work(batches, budgets, NUM_MICRO_BATCHES * tokens),
            attention=AttentionConfig(block_size=256, top_k=32),
            barrier=Barrier.MICRO,
            recompute=made.recompute,
            clock=clock,
        )
        if ranks.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - started) / NUM_MICRO_BATCHES)
        made.module.zero_grad(set_to_none=True)
    return times[NUM_WARMUP:], float(loss)


def _batch(tokens: int, device: torch.device) -> PackedBatch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, VOCAB_SIZE, (tokens,), generator=generator)
    at = torch.arange(0, tokens - 1, 16)
    return PackedBatch(
        input_ids=to_device(ids[None], device),
        position_ids=to_device(torch.arange(tokens)[None], device),
        cu_seqlens=to_device(torch.tensor([0, tokens], dtype=torch.int32), device),
        predict_at=to_device(at, device),
        labels=to_device(ids[at + 1], device),
        lengths=(tokens,),
        sequences=(0,),
    )


def _budgets(made: TrainableModel, batch: PackedBatch) -> TargetBudgets:
    ladder = (1, 32, 512)
    layers = made.module.config.num_hidden_layers
    device = batch.input_ids.device
    return TargetBudgets(
        torch.full((layers, 1), 32, dtype=torch.int32),
        batch.sequences,
        torch.tensor(ladder, dtype=torch.int32, device=device),
        ladder,
        32,
        limits=None,
        measure=False,
        dense=False,
    )


if __name__ == "__main__":
    main()
