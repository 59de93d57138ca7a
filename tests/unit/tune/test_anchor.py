import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from sbcore.config.method import AnchorTuner, AutoTuner, FixedTuner, TunerConfig, WaterfillTuner
from sbcore.errors import SparseBalanceError
from sbcore.tune import anchor as policies
from sbcore.tune.coverage import CoverageModel, budget_bounds
from sbcore.tune.judged import first_no_slower, judged_ms
from sbcore.tune.ladder import make_ladder
from sbcore.tune.policy import POLICIES, Observation, make_policy
from sbcore.types import Barrier, BatchPlan

BLOCK, TOP_K, LAYERS = 32, 8, 2
LADDER = make_ladder(128, TOP_K)


class LinearLatency:
    """A model with a floor in which a block costs the same wherever it is."""

    num_layers, floor_ms, constant_ms = LAYERS, 3.0, 1.0

    def attention_ms(self, lengths, top_k):
        num_blocks = -(-np.asarray(lengths) // BLOCK)
        return 1e-3 * lengths * np.minimum(top_k, num_blocks)

    def linear_ms(self, lengths):
        return 1e-3 * np.asarray(lengths)

    def predict(self, lengths, top_k):
        per_layer = np.broadcast_to(self.attention_ms(lengths, top_k), (LAYERS, len(lengths)))
        return per_layer.sum(axis=0) + self.linear_ms(lengths)


class BentLatency(LinearLatency):
    """Blocks cost less the more there are: between rungs a line is below the truth."""

    def attention_ms(self, lengths, top_k):
        num_blocks = -(-np.asarray(lengths) // BLOCK)
        return 1e-3 * lengths * np.minimum(top_k, num_blocks) ** 0.5


def observe(lengths, batch, *, barrier=Barrier.STEP, known=True, latency=None, ladder=LADDER):
    coverage = CoverageModel.empty(ladder, num_layers=LAYERS, block_size=BLOCK, ema_decay=0.9)
    if known:
        curve = 1 - np.exp(-0.15 * ladder)
        curve = curve / curve[-1]
        measured = np.broadcast_to(curve, (LAYERS, len(lengths), len(ladder)))
        coverage = coverage.updated(np.asarray(lengths), measured)
    latency = latency or LinearLatency()
    return Observation(np.asarray(lengths), batch, barrier, latency, coverage, TOP_K)


def one_each(*loads):
    return BatchPlan(tuple(tuple((i,) for i in load) for load in loads))


def rank_ms(observation, top_k):
    """Returns the predicted time of every rank, its micro-batches' floor included."""
    times = observation.latency.predict(observation.lengths, top_k)
    ranks = observation.batch.micro_batches
    packs = [[times[list(pack)].sum() for pack in rank] for rank in ranks]
    return np.maximum(packs, observation.latency.floor_ms).sum(axis=1)


def test_slow_loads_are_cut_and_fast_ones_raised():
    observation = observe([4096, 1024, 1024, 512], one_each([0, 1], [2, 3]))
    targets = make_policy(AnchorTuner(p=0.2)).decide(observation)
    assert (targets[:, :2] < TOP_K).all()
    assert (targets[:, 2:] > TOP_K).all()
    before = rank_ms(observation, np.full_like(targets, TOP_K))
    after = rank_ms(observation, targets)
    assert max(after) / np.mean(after) < max(before) / np.mean(before)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 4096), min_size=4, max_size=12),
    anchor=st.sampled_from(["mean", "min", "max"]),
    p=st.floats(0.01, 0.6),
    barrier=st.sampled_from(list(Barrier)),
    floor=st.integers(1, 3),
    cap=st.integers(0, 40),
)
def test_targets_stay_within_what_coverage_floor_and_cap_allow(
    lengths, anchor, p, barrier, floor, cap
):
    half = len(lengths) // 2
    batch = one_each(range(half), range(half, 2 * half))
    observation = observe(lengths[: 2 * half], batch, barrier=barrier)
    cap = max(cap, floor) if cap else 0
    policy = make_policy(AnchorTuner(anchor=anchor, p=p, floor=floor, cap=cap))
    targets = policy.decide(observation)
    top = cap or LADDER[-1]
    bounds = budget_bounds(
        observation.coverage.expected(observation.lengths), LADDER, top_k=TOP_K, p=p
    )
    low, high = np.clip(bounds, floor, top)
    assert targets.shape == (LAYERS, 2 * half)
    assert ((low <= targets) & (targets <= high)).all()
    assert (policy.decide(observation) == targets).all()


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 4096), min_size=4, max_size=8),
    anchor=st.sampled_from(["mean", "min", "max"]),
    p=st.floats(0.05, 0.9),
    barrier=st.sampled_from(list(Barrier)),
)
@example(lengths=[1616, 507, 1585, 3474], anchor="max", p=0.5, barrier=Barrier.STEP)
def test_what_is_decided_is_not_thrown_away(lengths, anchor, p, barrier):
    """Budgets are chosen by the times by which they are judged, also between rungs."""
    half, judged = len(lengths) // 2, []

    def judge(seen, base, choices):
        judged.extend(judged_ms(seen, top_k) / judged_ms(seen, base) for top_k in choices)
        return first_no_slower(seen, base, choices)

    batch = one_each(range(half), range(half, 2 * half))
    known = {"latency": BentLatency(), "ladder": np.array([1, 2, 4, 8, 16, 32, 64, 128])}
    observation = observe(lengths[: 2 * half], batch, barrier=barrier, **known)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policies, "first_no_slower", judge)
        make_policy(AnchorTuner(anchor=anchor, p=p)).decide(observation)
    assert judged
    assert max(judged) <= 1 + 1e-9


def test_no_feasible_budget_takes_the_smallest_that_keeps_the_bound():
    observation = observe([4096, 64], one_each([0], [1]))
    targets = make_policy(AnchorTuner(anchor="min", p=0.05)).decide(observation)
    low, _ = budget_bounds(
        observation.coverage.expected(observation.lengths), LADDER, top_k=TOP_K, p=0.05
    )
    assert (targets[:, 0] == low[:, 0]).all()


def test_without_known_coverage_nothing_moves():
    observation = observe([4096, 64], one_each([0], [1]), known=False)
    assert (make_policy(AnchorTuner()).decide(observation) == TOP_K).all()


def test_fixed_keeps_k0():
    observation = observe([4096, 64], one_each([0], [1]))
    assert (make_policy(FixedTuner()).decide(observation) == TOP_K).all()


def test_micro_barrier_tunes_each_column_by_itself():
    batch = one_each([0, 1], [2, 3])
    observation = observe([4096, 512, 2048, 512], batch, barrier=Barrier.MICRO)
    targets = make_policy(AnchorTuner(p=0.3)).decide(observation)
    assert targets[0, 0] < TOP_K < targets[0, 2]
    assert (targets[:, 1] == targets[:, 3]).all()


def test_a_rank_with_nothing_to_do_is_left_out():
    observation = observe([256], BatchPlan((((0,),), ((),))), barrier=Barrier.MICRO)
    assert make_policy(AnchorTuner()).decide(observation).shape == (LAYERS, 1)


@pytest.mark.parametrize("kind", POLICIES)
def test_every_policy_of_the_table_can_be_made(kind):
    assert hasattr(make_policy(TypeAdapter(TunerConfig).validate_python({"kind": kind})), "decide")


@pytest.mark.parametrize("config", [AnchorTuner, WaterfillTuner, AutoTuner])
def test_a_floor_above_the_cap_is_refused(config):
    with pytest.raises(ValidationError, match="cap = 2: below floor = 3"):
        config(floor=3, cap=2)


def test_the_mean_anchor_leaves_loads_alone_that_no_whole_block_brings_nearer():
    observation = observe([2100, 2000, 2000, 2000], one_each([0, 1], [2, 3]))
    assert (make_policy(AnchorTuner(anchor="mean", p=0.5)).decide(observation) == TOP_K).all()
    cut = make_policy(AnchorTuner(anchor="min", p=0.5)).decide(observation)
    assert (cut[:, :2] == TOP_K - 1).all()


def test_an_unknown_policy_is_named_with_the_known_ones():
    config = FixedTuner.model_construct(kind="fixd")
    with pytest.raises(SparseBalanceError, match="Did you mean 'fixed'"):
        make_policy(config)
