"""Replays: what they add up to, and that the known order of methods comes out."""

from pathlib import Path

import numpy as np
import pytest

from sbcore.config.data import SamplingConfig
from sbcore.config.method import LengthBalancer, RandomBalancer, SabBalancer
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.plan.simulate import Method, Replay, Scene, replay
from sbcore.types import Barrier, BatchPlan, IntArray, Topology

LATENCY = AnalyticLatencyModel(256, 24, 100.0, 5.0, 4e-3, np.array([0.05, 1e-4, 4e-9, 2e-9]))

BASELINE = Method(RandomBalancer(), max_sequences=1, decide=None)
PACKED = Method(RandomBalancer(), max_sequences=0, decide=None)
LENGTH = Method(LengthBalancer(), max_sequences=0, decide=None)
SAB = Method(SabBalancer(), max_sequences=0, decide=None)


def scene(barrier: Barrier, *, num_ranks: int = 8, global_batch: int = 64) -> Scene:
    drawn = np.random.default_rng(0).lognormal(8.8, 1.1, size=20 * global_batch)
    lengths = np.clip(drawn, 64, 65536).astype(np.int64)
    sampling = SamplingConfig(global_batch=global_batch)
    topology = Topology(num_ranks, barrier, 65536, max_sequences=0)
    return Scene(lengths, LATENCY, 256, 32, sampling, topology, seed=0)


@pytest.mark.parametrize("barrier", Barrier)
def test_the_known_order_of_methods(barrier: Barrier) -> None:
    """Packing pays for the floor, balance comes on top, latency is at least as good as length."""
    where = scene(barrier)
    baseline, packed, length, sab = (replay(where, m) for m in (BASELINE, PACKED, LENGTH, SAB))
    assert 1.1 < packed.speedup_over(baseline) < length.speedup_over(baseline)
    assert length.speedup_over(baseline) <= sab.speedup_over(baseline)
    assert sab.optimality_gap < 0.02
    assert np.quantile(sab.step_ms / sab.bound_ms - 1, 0.95) < 0.02


def test_under_micro_filling_micro_steps_beats_even_lengths() -> None:
    """Work beside the longest sequence of a micro-step is free; a planner has to know that."""
    where = scene(Barrier.MICRO)
    assert replay(where, SAB).speedup_over(replay(where, LENGTH)) > 1.05


def test_smaller_budgets_are_faster() -> None:
    def quarter(lengths: IntArray, batch: BatchPlan) -> IntArray:
        assert sum(len(p) for rank in batch.micro_batches for p in rank) == len(lengths)
        return np.full((24, len(lengths)), 8, dtype=np.int64)

    where = scene(Barrier.STEP)
    tuned = replay(where, Method(SabBalancer(), max_sequences=0, decide=quarter))
    assert tuned.speedup_over(replay(where, SAB)) > 1.0


def test_a_replay_is_repeatable() -> None:
    where = scene(Barrier.MICRO, num_ranks=2, global_batch=16)
    assert np.array_equal(replay(where, SAB).step_ms, replay(where, SAB).step_ms)


def test_the_bubble_is_the_share_of_rank_time_spent_waiting() -> None:
    half_idle = Replay(np.array([10.0]), np.array([8.0]), np.array([2.0]), np.array([0.1]))
    assert half_idle.bubble == pytest.approx(0.5)
    assert half_idle.optimality_gap == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("name", "column"),
    [("mooncake_conversation_lengths.csv", 0), ("qmsum_sft_lengths.csv", 4)],
)
@pytest.mark.parametrize("barrier", Barrier)
def test_plans_for_real_lengths_are_near_the_bound(
    real_data: Path, name: str, column: int, barrier: Barrier
) -> None:
    rows = np.loadtxt(
        real_data / "lengths" / name, delimiter=",", skiprows=1, usecols=column, max_rows=1500
    )
    lengths = rows[(rows > 0) & (rows <= 65536)].astype(np.int64)
    sampling = SamplingConfig(global_batch=64)
    topology = Topology(8, barrier, 65536, max_sequences=0)
    where = Scene(lengths, LATENCY, 256, 32, sampling, topology, seed=0)
    sab, random = replay(where, SAB), replay(where, PACKED)
    whole = slice(0, len(lengths) // 64)  # the last batch is smaller: one sequence may bind
    assert np.quantile((sab.step_ms / sab.bound_ms)[whole] - 1, 0.95) < 0.02
    assert sab.speedup_over(random) > 1.1
