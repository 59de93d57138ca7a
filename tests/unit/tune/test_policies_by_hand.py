"""What anchors aim at, and what a probe makes of its steps, where a block is a small step."""

from dataclasses import replace

import numpy as np
import pytest

from sbcore.config.method import AnchorTuner, AutoTuner
from sbcore.tune.coverage import CoverageModel, budget_bounds
from sbcore.tune.ladder import make_ladder
from sbcore.tune.policy import Observation, make_policy
from sbcore.types import Barrier, BatchPlan

BLOCK, TOP_K, LAYERS = 32, 8, 2
LADDER = make_ladder(128, TOP_K)
LENGTHS = np.array([3900, 4096, 3700, 3950])
ALONE = BatchPlan((((0,),), ((1,),), ((2,),), ((3,),)))


class BlockTime:
    """A block costs the same wherever it is, and nothing else costs anything."""

    num_layers, floor_ms, constant_ms = LAYERS, 0.0, 0.0

    def __init__(self, factor):
        self.factor = factor

    def attention_ms(self, lengths, top_k):
        return self.factor * 1e-3 * lengths * np.minimum(top_k, -(-np.asarray(lengths) // BLOCK))

    def linear_ms(self, lengths):
        return np.zeros(len(lengths))

    def predict(self, lengths, top_k):
        shape = (LAYERS, len(lengths))
        return np.broadcast_to(self.attention_ms(lengths, top_k), shape).sum(axis=0)


def observe(*, batch=ALONE, lengths=LENGTHS, factor=1, step=None):
    empty = CoverageModel.empty(LADDER, num_layers=LAYERS, block_size=BLOCK, ema_decay=0.9)
    curve = 1 - np.exp(-0.15 * LADDER)
    shown = np.broadcast_to(curve / curve[-1], (LAYERS, len(lengths), len(LADDER)))
    known = empty.updated(lengths, shown)
    return Observation(lengths, batch, Barrier.STEP, BlockTime(factor), known, TOP_K, step)


def tuned(anchor, *, p=0.9):
    """Returns the loads at k0 and as tuned, milliseconds, and the targets [LAYERS, N]."""
    seen = observe()
    targets = make_policy(AnchorTuner(anchor=anchor, p=p)).decide(seen)
    fixed = np.full_like(targets, TOP_K)
    return *(seen.latency.predict(LENGTHS, top_k) for top_k in (fixed, targets)), targets


BLOCK_MS = LAYERS * 1e-3 * LENGTHS


def test_min_cuts_every_load_to_the_fastest_and_no_further():
    before, after, _ = tuned("min")
    assert (after <= before.min()).all()
    assert (after + BLOCK_MS > before.min()).all()


def test_max_raises_every_load_to_the_slowest_and_no_further():
    before, after, targets = tuned("max")
    assert (targets >= TOP_K).all()
    assert (after <= before.max()).all()
    assert (after + BLOCK_MS > before.max()).all()


def test_mean_ends_within_half_a_block_or_below_the_slowest():
    before, after, _ = tuned("mean")
    assert (np.abs(after - before.mean()) <= BLOCK_MS / 2 + 1e-9).all()
    assert after.max() <= before.max()


def alone(lengths):
    """Returns the budgets of the mean anchor, [N], where every sequence is a rank's step."""
    batch = BatchPlan(tuple(((i,),) for i in range(len(lengths))))
    seen = observe(batch=batch, lengths=np.array(lengths))
    return make_policy(AnchorTuner(anchor="mean", p=0.9)).decide(seen)[0].tolist()


def test_mean_takes_what_ends_nearest_to_it_on_both_sides():
    """64 ms and 53.8 at k0, 58.9 in the mean: 8 ms and 6.7 a block."""
    assert alone([4000, 3360]) == [7, 9]


def test_mean_ends_nearer_only_below_the_slowest():
    """640 ms of ten and 52.5: one block more ends at 59.0, two at 65.6, which is nearer to 62.9."""
    assert alone([4000] * 10 + [3280]) == [8] * 10 + [9]


def test_a_load_is_raised_as_far_as_any_layer_of_its_sequences_may_go():
    lengths = np.array([4096, 1000, 300])
    empty = CoverageModel.empty(LADDER, num_layers=LAYERS, block_size=BLOCK, ema_decay=0.9)
    slow, fast = 1 - np.exp(-0.05 * LADDER), np.minimum(LADDER / 12, 1.0)
    known = empty.updated(lengths, np.array([[slow, slow, fast], [slow, fast, fast]]))
    batch = BatchPlan((((0,),), ((1, 2),)))
    seen = Observation(lengths, batch, Barrier.STEP, BlockTime(1), known, TOP_K)
    low, high = budget_bounds(known.expected(lengths), LADDER, top_k=TOP_K, p=0.2)
    assert high[0, 1] > high[1, 1] == high[0, 2] > TOP_K
    every = [np.clip(np.full((LAYERS, 3), k), low, high) for k in range(1, 129)]
    slowest = BlockTime(1).predict(lengths, np.full((LAYERS, 3), TOP_K))[0]
    fitting = [k for k in every if BlockTime(1).predict(lengths, k)[1:].sum() <= slowest]
    targets = make_policy(AnchorTuner(anchor="max", p=0.2)).decide(seen)
    np.testing.assert_array_equal(targets[:, 1:], fitting[-1][:, 1:])


def test_a_policy_that_decided_before_decides_as_a_new_one():
    lengths = np.array([4096, 2100, 2100, 2100])
    config, seen = AnchorTuner(anchor="min", p=0.05), observe(lengths=lengths)
    steep = np.broadcast_to(np.minimum(LADDER / 9, 1.0), (LAYERS, 4, len(LADDER)))
    learned = replace(seen, coverage=seen.coverage.updated(lengths, steep))
    for changed in (learned, replace(seen, top_k=16)):
        used = make_policy(config)
        before, after = used.decide(seen), used.decide(changed)
        np.testing.assert_array_equal(after, make_policy(config).decide(changed))
        assert (before != after).any()


@pytest.mark.parametrize("anchor", ["min", "mean"])
def test_a_rank_without_sequences_pulls_no_anchor_down(anchor):
    """Its time is that of an empty micro-batch: no load could follow."""
    policy, two = make_policy(AnchorTuner(anchor=anchor, p=0.9)), LENGTHS[:2]
    busy = observe(batch=BatchPlan((((0,),), ((1,),))), lengths=two)
    beside = observe(batch=BatchPlan((((0,),), ((1,),), ((),))), lengths=two)
    np.testing.assert_array_equal(policy.decide(beside), policy.decide(busy))


def test_an_anchor_out_of_reach_takes_the_least_budgets_that_p_allows():
    seen = observe(lengths=np.array([4096, 400]), batch=BatchPlan((((0,),), ((1,),))))
    targets = make_policy(AnchorTuner(anchor="min", p=0.05)).decide(seen)
    curves = seen.coverage.expected(seen.lengths)
    low, _ = budget_bounds(curves, LADDER, top_k=TOP_K, p=0.05)
    np.testing.assert_array_equal(targets[:, 0], low[:, 0])
    assert (targets[:, 0] > 1).all(), "the bound did not bind"


PROBED = AutoTuner(anchors=("mean", "optimum"), p_choices=(0.05, 0.2), probe_rounds=3)


def chosen(measured):
    """Returns the pair kept; measured(pair, round) is (factor of k0, ms, coverage_delta)."""
    policy, num_steps = make_policy(PROBED), 4 * PROBED.probe_rounds
    for step in range(num_steps):
        factor, ms, delta = measured(policy.pair_at(step), step // 4)
        policy.decide(observe(factor=factor, step=step))
        policy.learn(step, step_ms=ms, coverage_delta=delta)
    return policy.pair_at(num_steps)


def test_a_pair_that_met_longer_batches_does_not_look_slow():
    best = ("mean", 0.2)
    assert chosen(lambda pair, _: (2, 80.0, 0.0) if pair == best else (1, 50.0, 0.0)) == best


@pytest.mark.parametrize("disturbed", [(1000.0, 0.0), (90.0, -9.0)])
def test_one_disturbed_step_does_not_decide(disturbed):
    best = ("optimum", 0.05)

    def measured(pair, number):
        if pair != best:
            return 1, 100.0, 0.0
        return 1, *(disturbed if number == 0 else (90.0, 0.0))

    assert chosen(measured) == best
