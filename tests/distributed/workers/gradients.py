"""Run by torchrun: the gradient of one global batch under two plans and both barriers."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from sbcore.config.compute import AttentionConfig
from sbcore.config.training import ModelConfig, ModelShape, TrainConfig
from sbcore.model.assemble import assemble
from sbcore.model.build import shape_config
from sbcore.train.batches import PackedBatch, pack
from sbcore.train.clock import make_clock
from sbcore.train.ranks import start_ranks
from sbcore.train.step import Work, run_micro_batches, update
from sbcore.tune.clamp import TargetBudgets
from sbcore.types import Barrier

LENGTHS = (300, 40, 170, 90, 64, 33)
PLANS = {
    "one by one": (((0,), (2,), (4,)), ((1,), (3,), (5,))),
    "packed": (((0, 1, 5),), ((2, 3, 4),)),
    "with a dummy": (((0,), (1, 2)), ((3, 4, 5), ())),
}
HOWS = {
    "plain": {},
    "recomputed": {"activation_checkpointing": "full"},
    "recomputed but attention": {"activation_checkpointing": "selective"},
    "recomputed when long": {"activation_checkpointing": "full", "recompute_above_tokens": 200},
    "kept gathered": {"keep_gathered": True},
    "two layers a collective": {"layers_per_shard": 2, "activation_checkpointing": "full"},
}
ATTENTION = AttentionConfig(block_size=16, top_k=3, backend="torch")


class Samples:
    """A token store made of a seed."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.tokens = [torch.randint(0, 97, (n,), generator=generator).numpy() for n in LENGTHS]
        self.targets = [torch.rand(n, generator=generator).numpy() < 0.3 for n in LENGTHS]

    def sample(self, i):
        return self.tokens[i], self.targets[i]


def budgets_of(batch: PackedBatch) -> TargetBudgets:
    top_k = torch.full((2, len(batch.lengths)), ATTENTION.top_k, dtype=torch.int32)
    ladder = (1, 2, 3, 32)
    return TargetBudgets(
        top_k,
        batch.sequences,
        torch.tensor(ladder, dtype=torch.int32),
        ladder,
        ATTENTION.top_k,
        limits=None,
        measure=False,
        dense=False,
    )


def gradient_of(plan, barrier, train, ranks, samples):
    shape = ModelShape(hidden_size=32, intermediate_size=64)
    made = assemble(
        shape_config(shape, vocab_size=97, max_tokens=512),
        ModelConfig(),
        TrainConfig(**train),
        mesh=ranks.mesh(),
        barrier=barrier,
        weights=None,
        seed=0,
    )
    clock = make_clock(made.module, ranks.device)
    clock.start()
    batches = [pack(samples, list(m), m, ranks.device) for m in plan[ranks.rank]]
    num_targets = sum(int(t[1:].sum()) for t in samples.targets)

    def run():
        loss = run_micro_batches(
            made.module,
            Work(batches, [budgets_of(b) for b in batches], num_targets),
            attention=ATTENTION,
            barrier=barrier,
            recompute=made.recompute,
            clock=clock,
        )
        dist.all_reduce(loss)
        return float(loss)

    loss = run()
    gradients = [p.grad.full_tensor().flatten() for p in made.module.parameters()]
    spans = clock.finish().read().spans
    assert all(0 <= span.waiting_ms <= span.total_ms for span in spans)
    whole = torch.cat(gradients)
    decrease = decrease_along(made.module, whole.norm(), run) if not train else None
    optimizer = torch.optim.AdamW(made.module.parameters(), fused=True)
    norm = update(made.module, optimizer, learning_rate=0.0, max_norm=1.0)
    return {"loss": loss, "norm_told": float(norm), "decrease": decrease}, whole


@torch.no_grad()
def decrease_along(module, norm, run):
    """Returns how much the loss falls down the gradient, over what the gradient says."""
    step, losses = 0.01 / norm, []
    for size in (step, -2 * step):
        for p in module.parameters():
            p.add_(p.grad, alpha=float(-size / norm))
        kept = [p.grad for p in module.parameters()]
        module.zero_grad(set_to_none=True)
        with torch.enable_grad():
            losses.append(run())
        for p, grad in zip(module.parameters(), kept, strict=True):
            p.grad = grad
    down, up = losses
    return (up - down) / float(2 * step * norm)


def main() -> None:
    ranks = start_ranks(wanted=2, device="cpu")
    samples = Samples()
    results = {
        (name, barrier, how): gradient_of(plan, barrier, train, ranks, samples)
        for name, plan in PLANS.items()
        for barrier in (Barrier.STEP, Barrier.MICRO)
        for how, train in HOWS.items()
    }
    (_, first), *_ = results.values()
    report = {
        f"{name}, {barrier}, {how}": facts
        | {
            "error": float((gradient - first).norm() / first.norm()),
            "norm": float(gradient.norm()),
        }
        for (name, barrier, how), (facts, gradient) in results.items()
    }
    if ranks.rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(report))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
