"""What deciding a step costs the host: layout, budgets, and what is learned from the step before.

PYTHONPATH=src python docs/results/tuning_decisions.py
prints a csv: processor time, milliseconds, medians of 15 calls, for lengths drawn from Mooncake's
conversations and the times of Qwen2.5-0.5B on an H100. On a GPU this runs beside the device's work.
"""

import csv
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sbcore.config.method import AnchorTuner, SabBalancer, WaterfillTuner
from sbcore.latency.model import TableLatencyModel
from sbcore.plan.budgets import BudgetAverages
from sbcore.plan.online import rebalance
from sbcore.tune.clamp import TargetBudgets
from sbcore.tune.coverage import CoverageModel
from sbcore.tune.ladder import make_ladder
from sbcore.tune.layer_clamp import ClampLimits
from sbcore.tune.policy import Observation, make_policy
from sbcore.types import Barrier, FloatArray, IntArray, Topology

BLOCK_SIZE, TOP_K, MAX_TOKENS = 256, 32, 65_536
LADDER = make_ladder(MAX_TOKENS // BLOCK_SIZE, TOP_K)
TABLE = Path("config/latency/h100-qwen2.5-0.5b.parquet")
LENGTHS = Path("config/lengths/mooncake-conversation.csv")
SITUATIONS = ((24, 16, 2), (24, 16, 8), (24, 64, 8), (36, 16, 2), (36, 64, 8))
"""Layers, sequences of a global batch, ranks."""
ONLINE = SabBalancer(online=True)


def main() -> None:
    """Prints the table."""
    latency = TableLatencyModel.read(TABLE, block_size=BLOCK_SIZE)
    pool = np.loadtxt(LENGTHS, skiprows=1, dtype=np.int64).clip(64, MAX_TOKENS)
    rows = csv.writer(sys.stdout)
    rows.writerow(("layers", "sequences", "ranks", "part", "ms"))
    for num_layers, num_sequences, num_ranks in SITUATIONS:
        lengths = np.random.default_rng(0).choice(pool, num_sequences)
        topology = Topology(num_ranks, Barrier.MICRO, MAX_TOKENS, 0)
        of_layers = replace(latency, num_layers=num_layers)
        for part, call in _calls(lengths, topology, of_layers).items():
            rows.writerow((num_layers, num_sequences, num_ranks, part, f"{_thread_ms(call):.2f}"))


def _calls(
    lengths: IntArray, topology: Topology, latency: TableLatencyModel
) -> dict[str, Callable[[], object]]:
    shape = (latency.num_layers, len(lengths))
    curves = _curves(lengths, shape)
    empty = CoverageModel.empty(LADDER, num_layers=shape[0], block_size=BLOCK_SIZE, ema_decay=0.9)
    coverage = empty.updated(lengths, curves)
    averages = BudgetAverages(ONLINE, num_layers=shape[0], block_size=BLOCK_SIZE, top_k=TOP_K)
    averages.update(lengths, np.full(shape, TOP_K))

    def lay_out():  # noqa: ANN202
        top_k = averages.expect(lengths)
        return rebalance(lengths, topology, latency=latency, top_k=top_k, config=ONLINE, seed=1)

    batch = lay_out()
    seen = Observation(lengths, batch, Barrier.MICRO, latency, coverage, TOP_K, 0)
    anchor, waterfill = (make_policy(tuner) for tuner in (AnchorTuner(), WaterfillTuner()))
    targets = waterfill.decide(seen)
    return {
        "layout": lay_out,
        "anchor": lambda: anchor.decide(seen),
        "waterfill": lambda: waterfill.decide(seen),
        "budgets of a rank": lambda: list(_budgets(targets, batch.micro_batches[0])),
        "learning": lambda: (coverage.updated(lengths, curves), averages.update(lengths, targets)),
    }


def _budgets(targets: IntArray, packs: tuple[tuple[int, ...], ...]) -> Iterator[TargetBudgets]:
    ladder = torch.from_numpy(LADDER.astype(np.int32))
    limits = ClampLimits(p=0.1, floor=1, cap=int(LADDER[-1]))
    for pack in packs:
        chosen = torch.from_numpy(targets[:, list(pack)].astype(np.int32))
        rungs = tuple(LADDER.tolist())
        yield TargetBudgets(chosen, pack, ladder, rungs, TOP_K, limits, measure=True, dense=False)


def _curves(lengths: IntArray, shape: tuple[int, int]) -> FloatArray:
    """Returns curves that saturate at another rate in every layer and sequence."""
    rates = np.random.default_rng(1).normal(0.06, 0.02, (*shape, 1)).clip(0.01)
    curves = 1 - np.exp(-rates * LADDER)
    curves /= curves[..., -1:]
    return np.where(lengths[:, None] <= LADDER * BLOCK_SIZE, 1.0, curves)


def _thread_ms(call: Callable[[], object]) -> float:
    """Returns the processor time: the wall clock would count who else is at work."""
    call()
    times = []
    for _ in range(15):
        started = time.thread_time()
        call()
        times.append(1e3 * (time.thread_time() - started))
    return float(np.median(times))


if __name__ == "__main__":
    main()
