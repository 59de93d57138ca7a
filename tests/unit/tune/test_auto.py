from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbcore.config.method import AnchorTuner, AutoTuner, FixedTuner, WaterfillTuner
from sbcore.tune.auto import best_pair
from sbcore.tune.coverage import CoverageModel
from sbcore.tune.ladder import make_ladder
from sbcore.tune.policy import Observation, learner_of, make_policy, p_of_step
from sbcore.types import Barrier, BatchPlan

BLOCK, TOP_K, LAYERS = 32, 8, 2
LADDER = make_ladder(128, TOP_K)
LENGTHS = np.array([4096, 1024, 900, 512])
CONFIG = AutoTuner(anchors=("mean", "optimum"), p_choices=(0.05, 0.2), probe_rounds=3)
PROBE = 2 * 2 * 3


class BlockTime:
    num_layers, floor_ms, constant_ms = LAYERS, 0.0, 1.0

    def attention_ms(self, lengths, top_k):
        return 1e-3 * lengths * np.minimum(top_k, -(-np.asarray(lengths) // BLOCK))

    def linear_ms(self, lengths):
        return 1e-3 * np.asarray(lengths)

    def predict(self, lengths, top_k):
        return self.attention_ms(lengths, top_k).sum(axis=0) + self.linear_ms(lengths)


def observe(step, *, known=True):
    coverage = CoverageModel.empty(LADDER, num_layers=LAYERS, block_size=BLOCK, ema_decay=0.9)
    if known:
        curve = 1 - np.exp(-0.15 * LADDER)
        measured = np.broadcast_to(curve / curve[-1], (LAYERS, len(LENGTHS), len(LADDER)))
        coverage = coverage.updated(LENGTHS, measured)
    batch = BatchPlan((((0,),), ((1, 2, 3),)))
    return Observation(LENGTHS, batch, Barrier.STEP, BlockTime(), coverage, TOP_K, step)


def probe(policy, times, deltas, *, steps=PROBE):
    """Runs steps whose measured time and coverage_delta follow from the pair that was tried."""
    for step in range(steps):
        pair = policy.pairs.index(policy.pair_at(step))
        policy.decide(observe(step))
        policy.learn(step, step_ms=times[pair], coverage_delta=deltas[pair])


def test_every_pair_has_its_turn_before_the_choice():
    policy = make_policy(CONFIG)
    tried = [policy.pair_at(step) for step in range(PROBE)]
    assert [tried.count(pair) for pair in policy.pairs] == [3, 3, 3, 3]
    assert policy.pairs == [("mean", 0.05), ("mean", 0.2), ("optimum", 0.05), ("optimum", 0.2)]


@pytest.mark.parametrize(
    ("max_loss", "wanted"), [(0.5, ("optimum", 0.2)), (3.0, ("mean", 0.2)), (0.0, ("optimum", 0.2))]
)
def test_the_fastest_pair_within_the_loss_is_kept(max_loss, wanted):
    policy = make_policy(CONFIG.model_copy(update={"max_coverage_loss": max_loss}))
    probe(policy, times=[95.0, 80.0, 94.0, 90.0], deltas=[-0.4, -2.5, 0.3, 0.1])
    assert {policy.pair_at(step) for step in range(PROBE, PROBE + 20)} == {wanted}
    assert policy.p_at(PROBE) == wanted[1]


def test_a_choice_decides_as_its_policy_would_alone():
    policy = make_policy(CONFIG)
    probe(policy, times=[95.0, 80.0, 94.0, 90.0], deltas=[-0.4, -2.5, 0.3, 0.1])
    alone = make_policy(WaterfillTuner(p=0.2)).decide(observe(PROBE))
    np.testing.assert_array_equal(policy.decide(observe(PROBE)), alone)


def test_a_resumed_probe_goes_on_where_it_was():
    times, deltas = [95.0, 80.0, 94.0, 90.0], [-0.4, -2.5, 0.3, 0.1]
    whole, first, second = (make_policy(CONFIG) for _ in range(3))
    probe(whole, times, deltas)
    probe(first, times, deltas, steps=7)
    second.load({name: value.copy() for name, value in first.state().items()})
    probe_rest = range(7, PROBE)
    for step in probe_rest:
        pair = second.pairs.index(second.pair_at(step))
        second.decide(observe(step))
        second.learn(step, step_ms=times[pair], coverage_delta=deltas[pair])
    assert second.pair_at(PROBE) == whole.pair_at(PROBE)
    for name, value in whole.state().items():
        np.testing.assert_array_equal(second.state()[name], value)


def test_steps_without_curves_or_coverage_do_not_count():
    policy = make_policy(CONFIG)
    policy.decide(observe(0, known=False))
    policy.learn(0, step_ms=1.0, coverage_delta=0.0)
    policy.decide(observe(1))
    policy.learn(1, step_ms=1.0, coverage_delta=None)
    policy.learn(2, step_ms=1.0, coverage_delta=0.0)  # never decided here: lost by a restart
    assert np.isnan(policy.state()["probe_time"]).all()
    assert policy.pair_at(PROBE + 5) in policy.pairs


def test_a_step_counts_by_what_k0_would_take():
    policy = make_policy(CONFIG)
    policy.decide(observe(0))
    k0_ms = max(BlockTime().predict(LENGTHS[[0]], np.full((LAYERS, 1), TOP_K)).sum(), 0.0) + 1.0
    policy.learn(0, step_ms=0.5 * k0_ms, coverage_delta=-1.5)
    assert policy.state()["probe_time"][0, 0] == pytest.approx(0.5)
    assert policy.state()["probe_delta"][0, 0] == -1.5


def test_steps_after_the_probe_teach_nothing():
    policy = make_policy(CONFIG)
    probe(policy, times=[95.0, 80.0, 94.0, 90.0], deltas=[-0.4, -2.5, 0.3, 0.1])
    before = policy.state()["probe_time"].copy()
    policy.decide(observe(PROBE))
    policy.learn(PROBE, step_ms=1.0, coverage_delta=1.0)
    np.testing.assert_array_equal(policy.state()["probe_time"], before)


def test_a_pair_counts_by_the_rounds_it_has_and_is_left_out_without_any():
    """Pair 0 was never measured; pair 2 was once, and is the fastest of those known."""
    policy = make_policy(CONFIG.model_copy(update={"max_coverage_loss": 5.0}))
    for step in (1, 2, 3, 5, 7):
        policy.decide(observe(step))
        policy.learn(step, step_ms=80.0 if step == 2 else 90.0, coverage_delta=-0.1)
    assert policy.pair_at(PROBE) == policy.pairs[2]


def test_a_loaded_probe_does_not_know_steps_under_way():
    policy = make_policy(CONFIG)
    policy.decide(observe(0))
    policy.load(make_policy(CONFIG).state())
    policy.learn(0, step_ms=1.0, coverage_delta=0.0)
    assert np.isnan(policy.state()["probe_time"]).all()


@pytest.mark.parametrize(
    ("time", "delta", "max_loss", "best"),
    [
        ([1.0, 0.9], [0.0, -1.0], 1.0, 1),  # as much as it may lose
        ([0.9, 0.9, 1.0], [-0.5, -0.2, 0.0], 1.0, 1),  # as fast, and loses less
        ([1.0, 2.0], [-1.0, 0.0], None, 1),  # both ends of the front: the one that loses less
        ([1.0, 1.0], [-1.0, -0.5], None, 1),  # no time to gain
        ([1.0, 1.0], [-0.5, -0.5], None, 0),
    ],
)
def test_what_decides_between_equals(time, delta, max_loss, best):
    with np.errstate(invalid="raise"):
        assert best_pair(np.array(time), np.array(delta), max_loss=max_loss) == best


def test_without_a_number_of_the_step_it_says_what_it_needs():
    with pytest.raises(AssertionError, match="by the number of the step"):
        make_policy(CONFIG).decide(replace(observe(0), step=None))


@given(
    pairs=st.lists(
        st.tuples(st.floats(0.5, 2.0), st.floats(-5.0, 5.0)), min_size=1, max_size=9, unique=True
    )
)
def test_nothing_on_the_front_beats_the_knee(pairs):
    time, delta = np.array(pairs).T
    best = best_pair(time, delta, max_loss=None)
    assert not ((time < time[best]) & (delta > delta[best])).any()


def test_a_knee_is_where_more_speed_starts_to_cost_much():
    time, delta = np.array([1.0, 0.9, 0.8, 0.78]), np.array([0.0, -0.1, -0.3, -3.0])
    assert best_pair(time, delta, max_loss=None) == 2


def test_when_all_lose_too_much_the_least_is_taken():
    assert best_pair(np.array([0.7, 0.8]), np.array([-3.0, -2.0]), max_loss=0.5) == 1


def test_the_bound_of_a_step_is_the_policys():
    assert p_of_step(FixedTuner(), learner_of(make_policy(FixedTuner())), step=3) is None
    assert p_of_step(AnchorTuner(p=0.3), learner_of(make_policy(AnchorTuner())), step=3) == 0.3
    policy = make_policy(CONFIG)
    assert learner_of(policy) is policy
    assert [p_of_step(CONFIG, policy, step=step) for step in (0, 1, 2)] == [0.05, 0.2, 0.05]


SHORT = np.array([4096, 1024, 900, TOP_K * BLOCK])


def test_sequences_that_k0_covers_do_not_keep_the_probe_from_counting():
    """The trainer shows no curves of them (`CoverageModel.beyond`), and most batches have some."""
    policy, shown = make_policy(CONFIG), observe(0)
    shown = replace(shown, lengths=SHORT, coverage=shown.coverage.beyond(TOP_K))
    assert np.isnan(shown.coverage.expected(SHORT)).any()
    for step in range(PROBE):
        policy.decide(replace(shown, step=step))
        policy.learn(step, step_ms=100.0, coverage_delta=0.0)
    assert np.isfinite(policy.state()["probe_time"]).all()
    assert len({policy.pair_at(step) for step in range(PROBE, 2 * PROBE)}) == 1


def test_a_batch_that_k0_covers_teaches_nothing():
    policy, shown = make_policy(CONFIG), observe(0)
    shown = replace(shown, lengths=LENGTHS.clip(max=TOP_K * BLOCK))
    policy.decide(replace(shown, coverage=shown.coverage.beyond(TOP_K)))
    policy.learn(0, step_ms=100.0, coverage_delta=0.0)
    assert np.isnan(policy.state()["probe_time"]).all()


def test_the_optimum_keeps_its_mean_over_steps_also_across_a_restart():
    config = AutoTuner(anchors=("optimum",), p_choices=(0.2,), probe_rounds=1)
    policy, alone = make_policy(config), make_policy(WaterfillTuner(p=0.2))
    for step in range(4):
        policy.learn(step, step_ms=1.0, coverage_delta=-1.0)
        alone.learn(step, step_ms=1.0, coverage_delta=-1.0)
    owed = alone.decide(observe(4))
    assert (owed != make_policy(WaterfillTuner(p=0.2)).decide(observe(4))).any()
    np.testing.assert_array_equal(policy.decide(observe(4)), owed)
    resumed = make_policy(config)
    resumed.load(policy.state())
    np.testing.assert_array_equal(resumed.decide(observe(4)), owed)
