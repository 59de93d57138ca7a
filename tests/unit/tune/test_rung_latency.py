"""Answers that were looked up are those of the model, bit for bit."""

import numpy as np
import pytest

from sbcore.latency.additive import AdditiveLatency
from sbcore.latency.packs import Covered, WorkShares
from sbcore.plan.cost import KnownTimesCost
from sbcore.plan.objective import micro_batch_ms
from sbcore.tune import rung_latency
from sbcore.tune.rung_latency import RungLatency
from sbcore.types import BatchPlan, FloatArray, IntArray

LADDER, LONGEST = np.array([1, 2, 8, 40]), 1024
LENGTHS = np.array([LONGEST, 77, 64, 1, 77])


class Counting(AdditiveLatency):
    """Counts how often it is asked."""

    num_layers, floor_ms, constant_ms, ms_per_token = 2, 0.1, 0.5, 0.01
    update_ms = 7.0

    def __init__(self, *, knows_dense: bool) -> None:
        self.knows_dense, self.asked = knows_dense, 0

    @property
    def shares(self) -> WorkShares:
        return WorkShares(1000, 0.75, 1.0)

    def attention_ms(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        self.asked += 1
        return 0.001 * lengths * top_k**0.7

    def covered(self, lengths: IntArray, top_k: IntArray) -> Covered | None:
        if not self.knows_dense:
            return None
        self.asked += 1
        least = top_k.min(axis=0) if top_k.ndim == 2 else top_k
        return Covered(64 * least, 0.3 * np.sqrt(lengths) * least)

    def extrapolates(self, lengths: IntArray, top_k: IntArray) -> np.ndarray:
        return np.broadcast_to(lengths > 900, np.broadcast_shapes(lengths.shape, top_k.shape))


def judged(latency: AdditiveLatency, lengths: IntArray, top_k: IntArray) -> FloatArray:
    batch = BatchPlan((((0, 1), (2,)),))
    return micro_batch_ms(batch, lengths, KnownTimesCost.at(latency, lengths, top_k))


@pytest.mark.parametrize("knows_dense", [True, False])
@pytest.mark.parametrize(
    "lengths", [[1, 77, LONGEST], [64, 64, LONGEST + 1], [64, 78, 64]], ids=["known", "far", "new"]
)
@pytest.mark.parametrize(
    "top_k", [[[1, 40, 8], [2, 8, 8]], [[3, 8, 8], [2, 2, 2]], [[41, 1, 1]] * 2]
)
def test_a_step_takes_what_the_model_says(knows_dense, lengths, top_k):
    model = Counting(knows_dense=knows_dense)
    known = RungLatency(model, LADDER, lengths=LENGTHS)
    asked = np.array(lengths), np.array(top_k)
    assert (judged(known, *asked) == judged(model, *asked)).all()
    assert (known.extrapolates(*asked) == model.extrapolates(*asked)).all()
    assert known.update_ms == model.update_ms


def test_all_is_asked_before_the_first_step():
    model = Counting(knows_dense=True)
    known = RungLatency(model, LADDER, lengths=LENGTHS)
    for seed in range(3):
        draw = np.random.default_rng(seed)
        lengths, rungs = draw.choice(LENGTHS, 3), draw.integers(0, 4, (2, 3))
        known.attention_ms(lengths[:, None], LADDER[None])
        judged(known, lengths, LADDER[rungs])
    assert model.asked == 2


def test_of_too_many_lengths_the_shortest_are_known(monkeypatch):
    monkeypatch.setattr(rung_latency, "MOST_LENGTHS", 2)
    model = Counting(knows_dense=True)
    known, one = RungLatency(model, LADDER, lengths=LENGTHS), np.array([8])
    model.asked = 0
    for length, asked in ((1, 0), (64, 0), (77, 1), (LONGEST, 2)):
        known.attention_ms(np.array([length]), one)
        assert model.asked == asked
