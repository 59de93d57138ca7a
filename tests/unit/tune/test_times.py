"""Times of a step as policies see them, in micro-batches that are not all recomputed."""

import numpy as np
import pytest

from sbcore.latency.additive import AdditiveLatency
from sbcore.latency.packs import WorkShares
from sbcore.plan.cost import KnownTimesCost
from sbcore.plan.objective import micro_batch_ms
from sbcore.tune.coverage import CoverageModel
from sbcore.tune.policy import Observation
from sbcore.tune.times import step_times
from sbcore.types import Barrier, BatchPlan


class Uneven(AdditiveLatency):
    num_layers, floor_ms, constant_ms, ms_per_token = 2, 0.0, 0.0, 0.01

    @property
    def shares(self):
        return WorkShares(1000, 0.75, 1.0)

    def attention_ms(self, lengths, top_k):
        return 0.001 * lengths * top_k

    def extrapolates(self, lengths, top_k):
        return np.zeros(np.broadcast_shapes(lengths.shape, top_k.shape), dtype=bool)


def test_policies_see_the_times_that_plans_are_judged_by() -> None:
    lengths, ladder = np.array([600, 300, 900, 800]), np.array([1, 2, 4, 8])
    batch = BatchPlan((((0, 3), (2,)), ((1,), ())))
    coverage = CoverageModel.empty(ladder, num_layers=2, block_size=128, ema_decay=0.5)
    latency = Uneven()
    seen = step_times(Observation(lengths, batch, Barrier.MICRO, latency, coverage, 4))
    rungs = np.array([[0, 1, 2, 3], [3, 2, 1, 0]])
    judged = micro_batch_ms(batch, lengths, KnownTimesCost.at(latency, lengths, ladder[rungs]))
    assert seen.at_rungs(rungs) == pytest.approx(judged.ravel())
