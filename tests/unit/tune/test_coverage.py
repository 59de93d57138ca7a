import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbcore.tune.coverage import CoverageModel, buckets_of, budget_bounds, coverage_at
from sbcore.tune.ladder import make_ladder

LADDER = make_ladder(64, 8)


def concave_curve(rate: float) -> np.ndarray:
    """Returns a rising curve over the ladder that ends at 1."""
    curve = 1 - np.exp(-rate * LADDER)
    return curve / curve[-1]


@given(num_blocks=st.integers(1, 5000), top_k=st.integers(1, 300))
def test_ladder_rises_from_one_and_holds_k0_and_the_last_block(num_blocks, top_k):
    ladder = make_ladder(num_blocks, top_k)
    assert ladder[0] == 1
    assert (np.diff(ladder) > 0).all()
    assert top_k in ladder
    assert ladder[-1] == max(num_blocks, top_k)


def test_buckets_double_in_length():
    lengths = np.array([1, 32, 33, 64, 65, 4096])
    assert buckets_of(lengths, 32).tolist() == [0, 0, 1, 1, 2, 7]


@given(rate=st.floats(0.01, 2.0), p=st.floats(0.01, 0.5))
def test_bounds_keep_p_and_hold_k0(rate, p):
    curve = concave_curve(rate)
    low, high = budget_bounds(curve, LADDER, top_k=8, p=p)
    base = curve[np.searchsorted(LADDER, 8)]
    assert low <= 8 <= high
    assert curve[np.searchsorted(LADDER, low)] >= base - p
    smaller = LADDER[low > LADDER]
    assert all(curve[np.searchsorted(LADDER, k)] < base - p for k in smaller)


@given(
    rates=st.lists(st.floats(0.01, 2.0), min_size=2, max_size=8),
    weights=st.lists(st.integers(1025, 2048), min_size=8, max_size=8),
    p=st.floats(0.01, 0.5),
)
def test_what_averages_allow_keeps_p_in_the_mean_but_not_in_each_sequence(rates, weights, p):
    """So between clamps (`clamp_every_steps`) p holds for the mean of a bucket, and no more."""
    lengths = np.array(weights[: len(rates)])  # one bucket, beyond k0
    curves = np.stack([concave_curve(rate) for rate in rates])[None]
    model = CoverageModel.empty(LADDER, num_layers=1, block_size=32, ema_decay=0.0)
    model = model.updated(lengths, curves)
    bounds = budget_bounds(model.curves, LADDER, top_k=8, p=p)[:, 0, model.buckets(lengths)]
    base = curves[0, :, np.searchsorted(LADDER, 8)]
    change = coverage_at(curves, LADDER, bounds[:1])[0] - base
    assert np.average(change, weights=lengths) >= -p - 1e-9


def test_unknown_curves_keep_k0():
    curves = np.stack([np.full(len(LADDER), np.nan), concave_curve(0.1)])
    low, high = budget_bounds(curves, LADDER, top_k=8, p=0.1)
    assert (low[0], high[0]) == (8, 8)
    assert low[1] < 8 < high[1]


def test_a_saturated_curve_is_not_raised_beyond_saturation():
    curve = np.minimum(LADDER / 10, 1.0)
    _, high = budget_bounds(curve, LADDER, top_k=8, p=0.9)
    assert high == 10


def test_averages_weight_by_tokens_and_forget_slowly():
    model = CoverageModel.empty(LADDER, num_layers=1, block_size=32, ema_decay=0.75)
    lengths = np.array([33, 64])
    first = np.stack([concave_curve(0.1), concave_curve(0.5)])[None]
    model = model.updated(lengths, first)
    expected = (33 * first[0, 0] + 64 * first[0, 1]) / 97
    np.testing.assert_allclose(model.expected(lengths)[0, 0], expected)
    second = np.stack([concave_curve(1.0)] * 2)[None]
    model = model.updated(lengths, second)
    np.testing.assert_allclose(model.expected(lengths)[0, 1], 0.75 * expected + 0.25 * second[0, 0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_curves_that_are_not_finite_teach_nothing(value):
    model = CoverageModel.empty(LADDER, num_layers=1, block_size=32, ema_decay=0.5)
    model = model.updated(np.array([64]), np.full((1, 1, len(LADDER)), value))
    assert np.isnan(model.expected(np.array([64]))).all()


def model_of(lengths, curve):
    model = CoverageModel.empty(LADDER, num_layers=1, block_size=32, ema_decay=0.5)
    return model.updated(np.array(lengths), np.stack([curve] * len(lengths))[None])


def test_beyond_k0_only_what_it_does_not_cover_is_known():
    model = model_of([8 * 32, 8 * 32 + 1], concave_curve(0.2)).beyond(8)
    low, high = budget_bounds(model.expected(np.array([256, 257])), LADDER, top_k=8, p=0.1)[:, 0].T
    assert low.tolist() == [8, 8]
    assert high[0] < 8 < high[1]


def test_sequences_kept_whole_weigh_in_the_change_of_coverage():
    curve = concave_curve(0.2)
    model = model_of([768], curve)
    rise = 100 * (curve[np.searchsorted(LADDER, 12)] - curve[np.searchsorted(LADDER, 8)])
    budgets = np.array([[12, 8]])
    found = model.expected_delta(np.array([768, 256]), budgets, top_k=8)
    assert found == pytest.approx(rise * 0.75)
    unknown = np.array([768, 257 * 32])
    kept = model.expected_delta(unknown, budgets, top_k=8)
    assert kept == pytest.approx(rise * 768 / unknown.sum())  # k0 is k0, whatever its curve
    moved = model.expected_delta(unknown, np.array([[12, 9]]), top_k=8)
    assert moved == pytest.approx(rise)  # what 9 covers there is not known


def test_a_change_is_unknown_only_where_budgets_moved_and_no_curve_was_measured():
    model = model_of([768], concave_curve(0.2))
    nothing = np.full((1, 2, len(LADDER)), np.nan)
    lengths = np.array([768, 2000])
    deltas = [
        model.delta(lengths, np.array([used]), top_k=8, curves=nothing)
        for used in ([8, 8], [9, 8], [9, 9])
    ]
    assert deltas == [0.0, None, None]
    partly = nothing.copy()
    partly[:, 1] = concave_curve(0.2)
    assert model.delta(lengths, np.array([[9, 8]]), top_k=8, curves=partly) is None
    assert model.delta(lengths, np.array([[8, 9]]), top_k=8, curves=partly) > 0


def test_budgets_that_cover_a_sequence_exactly_change_nothing():
    model = model_of([768], concave_curve(0.2))
    unknown = np.full((1, 1, len(LADDER)), np.nan)
    found = model.delta(np.array([8 * 32]), np.array([[12]]), top_k=8, curves=unknown)
    assert found == 0.0


@pytest.mark.parametrize(
    ("curve", "top_k", "p", "expected"),
    [
        ([0.25, 0.5, 0.75, 1.0], 4, 0.25, (2, 8)),  # p itself is allowed
        ([0.5, 1.0, 1.0, 1.0], 4, 0.25, (2, 4)),  # saturated below k0, which may stay
    ],
)
def test_bounds_by_hand(curve, top_k, p, expected):
    ladder = np.array([1, 2, 4, 8])
    assert tuple(budget_bounds(np.array(curve), ladder, top_k=top_k, p=p).tolist()) == expected


def test_lengths_are_new_until_their_average_is_full():
    model = model_of([768], concave_curve(0.2))  # remembers two
    assert model.is_new(np.array([768]))
    model = model.updated(np.array([768]), concave_curve(0.2)[None, None])
    assert not model.is_new(np.array([768]))
    assert model.is_new(np.array([768, 4000]))
    assert model.updated(np.array([768]), nothing_of(model)) is model


def nothing_of(model):
    return np.full((1, 1, len(model.ladder)), np.nan)
