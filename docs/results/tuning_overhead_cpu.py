"""What tuning costs a rank on a processor: steps of a run, with its parts switched off in turn.

torchrun --standalone --nproc-per-node 1 docs/results/tuning_overhead_cpu.py RUN VARIANT [ROUNDS]
prints a csv for rank 0's share of a planned run (results/demo and sab_dst, say: all stages before
train must be done). A round is one step of the plan, taken in each way in an order drawn anew:

- tuned: as in training; targets are decided, curves measured, budgets clamped, averages learned.
- no curves: targets are decided and used as they are.
- off: the same targets, decided before the clock starts.

One process, one model, processor time of its one thread, so that other work on the machine counts
little. `over_off_pct` is the median over rounds of the ratio within a round. That is no finer than
half a per cent, so `counted_pct` adds up what the parts themselves took in the tuned steps.

tuning_overhead.py, for GPUs, takes packs of one size that are always measured. Here the cost hangs
on which micro-batches are measured at all, thus on a plan and on what averages have seen.
"""

import csv
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from sbcore.attention.call import AttentionCall
from sbcore.config.load import load_stage
from sbcore.config.stages import TrainStage
from sbcore.data.read import TokenStore
from sbcore.latency.model import TableLatencyModel
from sbcore.model.assemble import assemble
from sbcore.model.build import read_model_config
from sbcore.plan.read import PlanFile, StepPlan
from sbcore.train.batches import PackedBatch, pack
from sbcore.train.clock import make_clock
from sbcore.train.ranks import Ranks, start_ranks
from sbcore.train.setup import make_optimizer
from sbcore.train.step import Work, run_micro_batches, update
from sbcore.train.tuning import StepTuner
from sbcore.tune.clamp import TargetBudgets
from sbcore.tune.ledger import collect
from sbcore.types import FloatArray, IntArray

NUM_WARMUP, MAX_ROUNDS = 3, 97
LEARNING_RATE, MAX_NORM = 1e-4, 1.0


@dataclass
class InLayers:
    """Budgets of a micro-batch, and the processor time that they take inside the layers."""

    source: TargetBudgets
    ms: float = 0.0

    @property
    def top_k_range(self) -> tuple[int, int] | None:
        """What the host knows of them."""
        return self.source.top_k_range

    def top_k(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        call: AttentionCall,
        *,
        means: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """Returns the layer's budgets."""
        started = time.thread_time()
        budgets = self.source.top_k(layer, q, k, call, means=means)
        self.ms += 1e3 * (time.thread_time() - started)
        return budgets


@dataclass
class Replay:
    """A run's inputs and model, and what its steps took."""

    stage: TrainStage
    plan: PlanFile
    store: TokenStore
    run_work: Callable[[Work], None]
    tuner: StepTuner
    ms: dict[str, list[float]] = field(default_factory=dict)

    def round(self, step: int, order: list[str]) -> None:
        """Takes one step in every way."""
        plan = self.plan.step(step)
        batches = [
            pack(self.store, plan.sample_ids[list(micro)].tolist(), micro, torch.device("cpu"))
            for micro in plan.batch.micro_batches[0]
            if micro
        ]
        given = self.tuner.targets(plan, step)
        ways = {
            "tuned": partial(self._tuned, plan, batches, step),
            "no curves": partial(self._decided, plan, batches, step),
            "off": partial(self._work, batches, [self._known(given, batch) for batch in batches]),
        }
        for way in order:
            self._timed(way, ways[way])

    def _tuned(self, plan: StepPlan, batches: list[PackedBatch], step: int) -> None:
        targets = self._timed("decide", partial(self._decide, plan, step))
        make = partial(self.tuner.budgets, targets, step=step)
        budgets = self._timed("budgets", lambda: [make(batch) for batch in batches])
        timed = [InLayers(source) for source in budgets]
        self._work(batches, timed)
        curves = self._timed("ledger", partial(self._curves, plan, budgets))
        self._timed("learn", partial(self.tuner.learn, plan.lengths, curves))
        self.ms.setdefault("layers", []).append(sum(source.ms for source in timed))
        measured = sum(source.measures for source in budgets) / len(budgets)
        self.ms.setdefault("measured", []).append(measured)

    def _decided(self, plan: StepPlan, batches: list[PackedBatch], step: int) -> None:
        targets = self._decide(plan, step)
        self._work(batches, [self._known(targets, batch) for batch in batches])

    def _decide(self, plan: StepPlan, step: int) -> IntArray:
        targets = self.tuner.targets(plan, step)
        self.tuner.expected_delta(plan, targets)
        return targets

    def _known(self, targets: IntArray, batch: PackedBatch) -> TargetBudgets:
        chosen = torch.from_numpy(targets[:, list(batch.sequences)].astype(np.int32))
        rungs = tuple(self.tuner.coverage.ladder.tolist())
        ladder = torch.tensor(rungs, dtype=torch.int32)
        top_k = self.stage.attention.top_k
        return TargetBudgets(
            chosen, batch.sequences, ladder, rungs, top_k, None, measure=False, dense=False
        )

    def _work(self, batches: list[PackedBatch], budgets: Sequence[Any]) -> None:
        self.run_work(Work(batches, budgets, sum(len(batch.labels) for batch in batches)))

    def _curves(self, plan: StepPlan, budgets: list[TargetBudgets]) -> FloatArray:
        num_layers, rungs = self.tuner.latency.num_layers, len(self.tuner.coverage.ladder)
        curves = np.full((num_layers, len(plan.lengths), rungs), np.nan)
        for part in collect(budgets).result():
            if part.curves is not None:
                curves[:, list(part.sequences)] = part.curves
        return curves

    def _timed(self, name: str, call: Callable[[], Any]) -> Any:
        started = time.thread_time()
        result = call()
        self.ms.setdefault(name, []).append(1e3 * (time.thread_time() - started))
        return result


def main(run: Path, variant: str, num_rounds: int) -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    ranks = start_ranks(wanted=1, device="cpu")
    try:
        replay, draw = _replay(run, variant, ranks), np.random.default_rng(0)
        num_rounds = min(num_rounds + NUM_WARMUP, replay.plan.num_steps)
        for step in range(num_rounds):
            replay.round(step, draw.permutation(["tuned", "no curves", "off"]).tolist())
    finally:
        dist.destroy_process_group()
    _print({name: np.array(ms[NUM_WARMUP:]) for name, ms in replay.ms.items()})


def _replay(run: Path, variant: str, ranks: Ranks) -> Replay:
    stage = load_stage(run / f"config/train.{variant}.json", TrainStage)
    latency = TableLatencyModel.read(run / "profile", block_size=stage.attention.block_size)
    store = TokenStore(run / "data")
    made = assemble(
        read_model_config(run / "base"),
        stage.model,
        stage.train,
        mesh=ranks.mesh(),
        barrier=stage.topology.barrier,
        weights=run / "base",
        seed=stage.seed,
    )
    optimizer = make_optimizer(made.module, stage.train)
    clock = make_clock(made.module, ranks.device)

    def run_work(work: Work) -> None:
        clock.start()
        run_micro_batches(
            made.module,
            work,
            attention=stage.attention,
            barrier=stage.topology.barrier,
            recompute=made.recompute,
            clock=clock,
        )
        update(made.module, optimizer, learning_rate=LEARNING_RATE, max_norm=MAX_NORM)

    return Replay(
        stage,
        PlanFile(run / f"variants/{variant}/plan/plan.parquet", index=run / "data/index.parquet"),
        store,
        run_work,
        StepTuner(stage, latency, lengths=store.lengths, device=ranks.device),
    )


def _print(ms: dict[str, Any]) -> None:
    rows = csv.writer(sys.stdout)
    rows.writerow(("way", "p20_ms", "median_ms", "p80_ms", "over_off_pct"))
    for way in ("off", "no curves", "tuned"):
        spread = np.percentile(ms[way], [20, 50, 80]).round(1).tolist()
        rows.writerow((way, *spread, round(100 * float(np.median(ms[way] / ms["off"]) - 1), 2)))
    rows.writerow(("part", "mean_ms", "counted_pct"))
    parts = ("decide", "budgets", "layers", "ledger", "learn")
    for part in parts:
        rows.writerow((part, round(ms[part].mean(), 3), _share(ms[part], ms["tuned"])))
    rows.writerow(("all", "", _share(sum(ms[part] for part in parts), ms["tuned"])))
    rows.writerow(("micro-batches measured", round(float(ms["measured"].mean()), 3), ""))


def _share(part: Any, whole: Any) -> float:
    return round(100 * float(part.sum() / whole.sum()), 2)


if __name__ == "__main__":
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else MAX_ROUNDS
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]), sys.argv[2], rounds)
