from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sbcore.config.method import WaterfillTuner
from sbcore.plan.objective import step_ms
from sbcore.tune.concave import Points, concave_front, segments_of
from sbcore.tune.coverage import CoverageModel, budget_bounds
from sbcore.tune.ladder import make_ladder
from sbcore.tune.policy import Observation, make_policy
from sbcore.types import Barrier, BatchPlan

BLOCK = 32


@dataclass(frozen=True)
class Table:
    """Times of one layer by rung of the ladder, each scaled by the sequence's length."""

    ladder: np.ndarray
    ms: np.ndarray
    num_layers: int
    floor_ms: float = 0.0
    constant_ms: float = 1.0

    def attention_ms(self, lengths, top_k):
        lengths, top_k = np.broadcast_arrays(lengths, top_k)
        return lengths / 1000 * self.ms[np.searchsorted(self.ladder, top_k)]

    def linear_ms(self, lengths):
        return np.asarray(lengths) / 1000

    def predict(self, lengths, top_k):
        return self.attention_ms(lengths, top_k).sum(axis=0) + self.linear_ms(lengths)


def observe(
    lengths, packs, curves, *, ladder, ms=None, top_k=4, barrier=Barrier.STEP, floor_ms=0.0
):
    """Returns an observation; curves are [L, N, K] and hold for the buckets of the lengths."""
    lengths, curves = np.asarray(lengths), np.asarray(curves, dtype=np.float64)
    coverage = CoverageModel.empty(ladder, num_layers=len(curves), block_size=BLOCK, ema_decay=0.5)
    latency = Table(ladder, ladder.astype(float) if ms is None else ms, len(curves), floor_ms)
    batch = BatchPlan(tuple(tuple(tuple(pack) for pack in rank) for rank in packs))
    return Observation(lengths, batch, barrier, latency, coverage.updated(lengths, curves), top_k)


def predicted_ms(observation, top_k):
    times = observation.latency.predict(observation.lengths, top_k)
    packs = [[times[list(p)].sum() for p in rank] for rank in observation.batch.micro_batches]
    return step_ms(np.maximum(packs, observation.latency.floor_ms), observation.barrier)


def changes(observation, top_k):
    """Returns C(top_k) - C(k0) by the curves shown, [..., L, N]."""
    curves = observation.coverage.expected(observation.lengths)
    ladder = observation.coverage.ladder
    layer, sequence = np.indices(curves.shape[:2])
    base = curves[..., np.searchsorted(ladder, observation.top_k)]
    return np.nan_to_num(curves[layer, sequence, np.searchsorted(ladder, top_k)] - base)


def coverage_delta(observation, top_k):
    return np.average(changes(observation, top_k).mean(axis=0), weights=observation.lengths)


def fixed(observation):
    shape = (observation.latency.num_layers, len(observation.lengths))
    return np.full(shape, observation.top_k)


def decide(observation, *, p, floor=1, cap=0):
    return make_policy(WaterfillTuner(p=p, floor=floor, cap=cap)).decide(observation)


def smooth_curves(rates, ladder):
    """Returns rising concave curves that end at 1, one per rate, [..., K]."""
    curves = 1 - np.exp(-np.asarray(rates)[..., None] * ladder)
    return curves / curves[..., -1:]


@st.composite
def observations(draw, ladder, max_layers=3):
    """Any lengths of few buckets, any rising curves and times, any plan."""
    num_ranks, num_micro = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    num_sequences, num_layers = draw(st.integers(1, 5)), draw(st.integers(1, max_layers))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    packs = [[[] for _ in range(num_micro)] for _ in range(num_ranks)]
    for i in range(num_sequences):
        packs[rng.integers(num_ranks)][rng.integers(num_micro)].append(i)
    steps = rng.exponential(size=(num_layers, num_sequences, len(ladder)))
    curves = np.cumsum(steps, axis=-1)
    ms = np.cumsum(rng.exponential(size=len(ladder)))
    return observe(
        rng.integers(BLOCK, 60 * BLOCK, size=num_sequences),
        packs,
        curves / curves[..., -1:],
        ladder=ladder,
        ms=ms,
        top_k=int(draw(st.sampled_from(ladder.tolist()))),
        barrier=draw(st.sampled_from(list(Barrier))),
        floor_ms=draw(st.sampled_from([0.0, 1.0, 5.0])),
    )


TINY = np.array([1, 2, 4, 8])
WIDE = make_ladder(60, 4)


def edges(ms, curve):
    """Yields the lengths of the concave front's edges: chords that no point is above."""
    for a, b in combinations(range(len(ms)), 2):
        chord = curve[a] + (curve[b] - curve[a]) * (ms - ms[a]) / (ms[b] - ms[a])
        if (curve <= chord + 1e-12).all():
            yield ms[b] - ms[a]


def longest_raise_ms(observation, p):
    """Returns the longest edge of all layers and sequences."""
    lengths, ladder = observation.lengths, observation.coverage.ladder
    base = int(np.searchsorted(ladder, observation.top_k))
    longest = 0.0
    for curves in observation.coverage.expected(lengths):
        for length, curve in zip(lengths, curves, strict=True):
            able = np.abs(curve - curve[base]) <= p
            ms = observation.latency.attention_ms(length, ladder[able])
            longest = max([longest, *edges(ms, curve[able])])
    return longest


def best_ms(observation, p):
    """Returns the least predicted time of all feasible budgets, by trying all of them."""
    shape, ladder = fixed(observation).shape, observation.coverage.ladder
    top_k = np.stack(list(product(ladder, repeat=shape[0] * shape[1]))).reshape(-1, *shape)
    change = changes(observation, top_k)
    mean = np.average(change.mean(axis=1), weights=observation.lengths, axis=1)
    feasible = (np.abs(change) <= p).all(axis=(1, 2)) & (mean >= 0)
    return min(predicted_ms(observation, k) for k in top_k[feasible])


@settings(max_examples=60, deadline=None)
@given(observation=observations(TINY, max_layers=2), p=st.floats(0.01, 0.9))
def test_it_ends_within_one_raise_of_the_best_of_all_budgets(observation, p):
    observation = shortened(observation, 3)
    best, ours = best_ms(observation, p), predicted_ms(observation, decide(observation, p=p))
    one_raise = longest_raise_ms(observation, p)
    assert best * (1 - 1e-9) <= ours
    assert ours <= best + observation.batch.num_micro_batches * one_raise + 1e-9


def shortened(observation, num_sequences):
    packs = observation.batch.micro_batches
    kept = tuple(
        tuple(tuple(i for i in pack if i < num_sequences) for pack in rank) for rank in packs
    )
    return replace(observation, lengths=observation.lengths[:num_sequences], batch=BatchPlan(kept))


@settings(max_examples=150, deadline=None)
@given(observation=observations(WIDE), p=st.floats(0.005, 0.9))
def test_it_is_never_slower_than_k0_and_loses_no_coverage(observation, p):
    top_k = decide(observation, p=p)
    before = predicted_ms(observation, fixed(observation))
    assert predicted_ms(observation, top_k) <= before * (1 + 1e-9)
    assert coverage_delta(observation, top_k) >= -1e-9
    assert (np.abs(changes(observation, top_k)) <= p + 1e-12).all()
    assert (decide(observation, p=p) == top_k).all()


@settings(max_examples=60, deadline=None)
@given(
    observation=observations(WIDE),
    p=st.floats(0.005, 0.9),
    floor=st.integers(1, 9),
    above=st.integers(0, 60),
)
def test_floor_cap_and_what_coverage_allows_hold(observation, p, floor, above):
    cap = floor + above if above else 0
    top_k = decide(observation, p=p, floor=floor, cap=cap)
    assert top_k.shape == fixed(observation).shape
    assert (top_k >= floor).all()
    assert (top_k <= (cap or WIDE[-1])).all()
    if floor <= observation.top_k <= (cap or WIDE[-1]):
        curves = observation.coverage.expected(observation.lengths)
        low, high = budget_bounds(curves, WIDE, top_k=observation.top_k, p=p)
        assert ((low <= top_k) & (top_k <= high)).all()


def heavy_tailed(barrier):
    """Returns 4 ranks of 2 micro-batches, one sequence each, with 6 layers that differ."""
    ladder = make_ladder(256, 32)
    lengths = 32 * np.array([250, 180, 130, 60, 100, 70, 128, 40])
    rng = np.random.default_rng(7)
    curves = smooth_curves(rng.uniform(0.01, 0.06, size=(6, 8)), ladder)
    packs = [[[i], [7 - i]] for i in range(4)]
    return observe(lengths, packs, curves, ladder=ladder, top_k=32, barrier=barrier)


def slopes_around(observation, top_k):
    """Returns token-weighted gain per ms of each row's last raise and of its next one, [L, N]."""
    ladder, lengths = observation.coverage.ladder, observation.lengths
    rung = np.searchsorted(ladder, top_k)
    curves = observation.coverage.expected(lengths) * lengths[:, None]
    ms = observation.latency.attention_ms(lengths[:, None], ladder[None, :])
    slope = np.diff(curves, axis=-1) / np.diff(ms, axis=-1)
    layer, sequence = np.indices(rung.shape)
    return slope[layer, sequence, rung - 1], slope[layer, sequence, rung]


@pytest.mark.parametrize("barrier", Barrier)
def test_marginal_gains_are_equal_where_p_does_not_bind(barrier):
    observation = heavy_tailed(barrier)
    top_k = decide(observation, p=0.6)
    last, following = slopes_around(observation, top_k)
    for rank in observation.batch.micro_batches:
        loads = [pack for pack in rank if pack] if barrier is Barrier.MICRO else [sum(rank, ())]
        for load in map(list, loads):
            assert last[:, load].min() >= following[:, load].max() * (1 - 1e-9)


def test_columns_of_the_micro_barrier_pay_the_same_for_coverage():
    observation = heavy_tailed(Barrier.MICRO)
    last, following = slopes_around(observation, decide(observation, p=0.6))
    ranks = observation.batch.micro_batches
    worth = [sum(last[:, list(rank[m])].min() for rank in ranks) for m in range(2)]
    price = [sum(following[:, list(rank[m])].max() for rank in ranks) for m in range(2)]
    assert max(price) <= min(worth) * 1.05


@pytest.mark.parametrize("barrier", Barrier)
def test_it_saves_time_where_lengths_and_curves_differ(barrier):
    observation = heavy_tailed(barrier)
    top_k = decide(observation, p=0.1)
    assert predicted_ms(observation, top_k) < 0.95 * predicted_ms(observation, fixed(observation))


def test_p_too_small_for_any_rung_keeps_k0():
    assert (decide(heavy_tailed(Barrier.STEP), p=1e-5) == 32).all()


def test_sequences_without_a_known_curve_keep_k0():
    observation = heavy_tailed(Barrier.STEP)
    curves = observation.coverage.curves.copy()
    curves[:, 8] = np.nan  # 129 to 256 blocks
    observation = replace(observation, coverage=replace(observation.coverage, curves=curves))
    top_k = decide(observation, p=0.1)
    unknown = observation.lengths > 128 * BLOCK
    assert (top_k[:, unknown] == 32).all()
    assert (top_k[:, ~unknown] != 32).any()
    nothing = replace(observation.coverage, curves=np.full_like(curves, np.nan))
    assert (decide(replace(observation, coverage=nothing), p=0.1) == 32).all()


def highest_within(observation, p):
    """Returns the largest rung that gains at most p, [L, N], before coverage is saturated."""
    curves = observation.coverage.expected(observation.lengths)
    base = curves[..., np.searchsorted(observation.coverage.ladder, observation.top_k), None]
    return observation.coverage.ladder[(curves <= base + p).sum(axis=-1) - 1]


def test_what_waits_is_raised_as_far_as_p_allows():
    ladder = make_ladder(128, 8)
    curves = smooth_curves(np.full((2, 2), 0.05), ladder)
    observation = observe([4096, 2100], [[[0]], [[1]]], curves, ladder=ladder, top_k=8)
    top_k = decide(observation, p=0.1)
    assert (top_k[:, 1] == highest_within(observation, 0.1)[:, 1]).all()
    assert (top_k[:, 0] < 8).all()


def test_a_cap_between_rungs_ends_at_the_lower_one():
    """What lies between is not measured: its coverage would be taken for that of the upper one."""
    ladder = make_ladder(128, 8)
    assert {16, 18} < set(ladder.tolist())
    curves = smooth_curves(np.full((2, 2), 0.05), ladder)
    observation = observe([9000, 2100], [[[0]], [[1]]], curves, ladder=ladder, top_k=8)
    assert (decide(observation, p=0.9, cap=17)[:, 1] == 16).all()


@pytest.mark.parametrize("barrier", Barrier)
def test_what_fits_under_the_floor_is_raised(barrier):
    ladder = make_ladder(128, 8)
    curves = smooth_curves(np.full((2, 2), 0.05), ladder)
    observation = observe(
        [640, 320], [[[0], [1]]], curves, ladder=ladder, top_k=8, barrier=barrier, floor_ms=1e3
    )
    assert (decide(observation, p=0.1) == highest_within(observation, 0.1)).all()


def test_a_floor_is_filled_also_beside_a_micro_batch_that_is_above_it():
    ladder = make_ladder(128, 8)
    curves = smooth_curves(np.full((2, 2), 0.05), ladder)
    observation = observe([4096, 320], [[[0], [1]]], curves, ladder=ladder, top_k=8, floor_ms=20)
    top_k = decide(observation, p=0.1)
    assert (top_k[:, 1] == highest_within(observation, 0.1)[:, 1]).all()
    assert (top_k[:, 0] <= 8).all()


def test_dummies_and_idle_ranks_do_no_harm():
    curves = smooth_curves(np.full((2, 2), 0.05), WIDE)
    packs = [[[0], [1]], [[], []], [[], []]]
    for barrier in Barrier:
        observation = observe([1900, 900], packs, curves, ladder=WIDE, barrier=barrier)
        top_k = decide(observation, p=0.3)
        assert predicted_ms(observation, top_k) <= predicted_ms(observation, fixed(observation))


def test_a_plan_without_sequences_has_no_budgets():
    observation = heavy_tailed(Barrier.STEP)
    empty = replace(observation, lengths=observation.lengths[:0], batch=BatchPlan((((),),)))
    assert decide(empty, p=0.1).shape == (6, 0)


def test_a_budget_slower_than_a_larger_one_is_not_used():
    ladder = np.arange(1, 11)
    ms = np.array([1, 2, 3, 4, 5, 9, 9, 6, 7, 8.0])
    curves = smooth_curves([[0.1, 0.3]], ladder)
    used = set()
    for length in range(100, 1900, 50):
        observation = observe([1900, length], [[[0]], [[1]]], curves, ladder=ladder, ms=ms)
        used |= set(decide(observation, p=0.9).ravel().tolist())
    assert used.isdisjoint({6, 7})
    assert len(used) > 3


@pytest.mark.parametrize("seed", range(20))
def test_the_front_holds_what_no_mixture_beats(seed):
    """Rows of whole numbers, so that times and gains often are equal."""
    rng = np.random.default_rng(seed)
    ms, gain = rng.integers(1, 7, (2, 3, 5)).astype(float)
    gain.sort(axis=1)
    row, rung = np.divmod(np.arange(15), 5)
    front = concave_front(Points(row, rung, ms.ravel(), gain.ravel()))
    segments = segments_of(front)
    assert (segments.ms > 0).all()
    assert (segments.gain > 0).all()
    for number in range(3):
        own = front.row == number
        slope = (segments.gain / segments.ms)[segments.row == number]
        assert (np.diff(slope) <= 1e-12).all()
        best = gain[number].max()
        assert front.gain[own][-1] == best
        assert front.ms[own][-1] == ms[number][gain[number] == best].min()
        covered = np.interp(ms[number], front.ms[own], front.gain[own], left=-np.inf)
        late = ms[number] >= front.ms[own][0]
        assert (gain[number][late] <= covered[late] + 1e-12).all()


def test_of_budgets_alike_the_larger_is_kept():
    same = np.array([1.0, 1.0])
    front = concave_front(Points(np.zeros(2, int), np.arange(2), same, same))
    assert front.rung.tolist() == [1]


def test_a_cap_below_the_floor_is_refused():
    with pytest.raises(ValidationError, match="cap = 3: below floor = 4"):
        WaterfillTuner(floor=4, cap=3)


def test_what_earlier_steps_lost_is_asked_for_and_what_they_gained_is_spent():
    observation, policy = heavy_tailed(Barrier.STEP), make_policy(WaterfillTuner(p=0.3))
    before = policy.decide(observation)
    policy.learn(0, step_ms=1.0, coverage_delta=None)
    policy.learn(1, step_ms=1.0, coverage_delta=float("nan"))
    assert (policy.decide(observation) == before).all()
    policy.learn(2, step_ms=1.0, coverage_delta=-2.0)
    owed = policy.decide(observation)
    assert coverage_delta(observation, owed) >= 0.25 * 0.02 - 1e-9
    resumed = make_policy(WaterfillTuner(p=0.3))
    resumed.load(policy.state())
    assert (resumed.decide(observation) == owed).all()
    policy.learn(3, step_ms=1.0, coverage_delta=4.0)
    spent = policy.decide(observation)
    assert coverage_delta(observation, spent) >= -0.25 * 0.02 - 1e-9
    times = [predicted_ms(observation, top_k) for top_k in (spent, before, owed)]
    assert times == sorted(set(times))


@pytest.mark.parametrize("total", [-50.0, 50.0])
def test_a_large_balance_is_evened_out_two_points_at_a_time(total):
    observation, policy = heavy_tailed(Barrier.STEP), make_policy(WaterfillTuner(p=0.3))
    policy.learn(0, step_ms=1.0, coverage_delta=total)
    asked = -np.sign(total) * 0.02
    found = coverage_delta(observation, policy.decide(observation))
    assert asked - 1e-9 <= found < asked + 0.002


def test_a_debt_that_k0s_time_cannot_pay_at_once_is_paid_in_part():
    observation, policy = heavy_tailed(Barrier.STEP), make_policy(WaterfillTuner(p=0.05))
    policy.learn(0, step_ms=1.0, coverage_delta=-50.0)
    owed, k0_ms = policy.decide(observation), predicted_ms(observation, fixed(observation))
    assert (owed < 32).any(), "nothing is cut, so nothing is faster while the debt lasts"
    assert predicted_ms(observation, owed) < 0.999 * k0_ms
    assert coverage_delta(observation, owed) >= 0.75 * 0.02 - 1e-9


class Served(Table):
    """What eight times the budget covers is served by something ten times faster."""

    def predict(self, lengths, top_k):
        covered = (8 * top_k * BLOCK >= lengths).all(axis=0)
        return Table.predict(self, lengths, top_k) * np.where(covered, 0.1, 1.0)


def test_cuts_that_end_a_faster_service_are_not_made():
    observation = heavy_tailed(Barrier.STEP)
    table = observation.latency
    served = replace(observation, latency=Served(table.ladder, table.ms, table.num_layers))
    assert (decide(observation, p=0.3) < 32).any()
    assert (decide(served, p=0.3)[:, observation.lengths > 8 * 31 * BLOCK] >= 32).all()
    assert predicted_ms(served, decide(served, p=0.3)) <= predicted_ms(served, fixed(served))
