"""From points to parts and lines: by an exact example, by what defines them, or by trying all."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbcore.latency import isotonic as module
from sbcore.latency.fit import (
    call_overhead,
    fit_parts,
    linear_points,
    predicted_work,
    sequence_shares,
)
from sbcore.latency.isotonic import isotonic, monotone
from sbcore.latency.line import fit_bent_line, fit_line, fit_times
from sbcore.latency.model import fit_table
from sbcore.latency.table import MeasuredPoint
from sbcore.types import FloatArray

BLOCK_SIZE = 32


def point(part: str, length: int, top_k: int, ms: float, **changed: object) -> MeasuredPoint:
    made = MeasuredPoint(part, length, top_k, 1, ms, 0.9 * ms, 1.2 * ms, 5, held_out=False)
    return replace(made, **changed)  # type: ignore[arg-type]


VALUES = st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 4)), min_size=1, max_size=7).map(
    np.array
)


@given(VALUES)
def test_isotonic_is_the_best_mean_from_each_start_to_each_end(table: FloatArray) -> None:
    """The minimax formula: the greatest over starts of the least over ends of weighted means."""
    values, weights = table.T
    num = len(values)

    def mean(first: int, last: int) -> float:
        return float(np.average(values[first : last + 1], weights=weights[first : last + 1]))

    expected = [
        max(min(mean(a, b) for b in range(i, num)) for a in range(i + 1)) for i in range(num)
    ]
    np.testing.assert_allclose(isotonic(values, weights), expected, atol=1e-9)


def test_a_table_is_pooled_along_both_axes() -> None:
    one = np.ones((1, 2))
    assert monotone(np.array([[4.0, 2.0]]), one).tolist() == [[3.0, 3.0]]
    assert monotone(np.array([[4.0], [2.0]]), one.T).tolist() == [[3.0], [3.0]]


# What is next to nothing was interpolated: it must not outweigh what falls beside it.
FALLING, WEIGHTS = np.array([[5.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 1e-6], [1.0, 1.0]])


def test_rows_and_columns_take_turns_till_both_rise() -> None:
    """The first turn leaves 2.5 beside 1: all that was measured is pooled, to 6 / 3."""
    np.testing.assert_allclose(monotone(FALLING, WEIGHTS), 2.0, rtol=1e-5)


def test_a_table_that_does_not_settle_still_rises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_SWEEPS", 1)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        weights = np.where(rng.random((4, 5)) < 0.4, 1e-6, 1.0)
        found = monotone(rng.normal(size=(4, 5)), weights)
        assert (np.diff(found, axis=0) >= 0).all()
        assert (np.diff(found, axis=1) >= 0).all()


def test_times_are_fitted_as_ratios() -> None:
    times = np.array([1.0, 4.0])
    (found,) = fit_times(np.ones((2, 1)), times)
    assert found == pytest.approx((1 / times).sum() / (1 / times**2).sum())


@given(st.lists(st.tuples(*[st.floats(0.1, 9)] * 3), min_size=4, max_size=8).map(np.array))
def test_no_coefficient_that_is_allowed_does_better(rows: FloatArray) -> None:
    """No step down the slope of the error is left: none at all, or one below nothing."""
    columns, times = np.column_stack([rows[:, :2] - 2.0, np.ones(len(rows))]), rows[:, 2]
    found, design = fit_times(columns, times), columns / times[:, None]
    slope = design.T @ (design @ found - 1.0)
    assert (found >= 0).all()
    assert (slope >= -1e-6).all()
    assert np.abs(slope[found > 0]).max(initial=0.0) < 1e-6


def test_a_line_has_its_slope_and_its_intercept() -> None:
    x = np.array([1.0, 2.0, 5.0])
    assert fit_line(x, 3.0 * x + 2.0) == pytest.approx((3.0, 2.0))
    assert fit_line(x, 5.0 - 0.5 * x)[0] == 0.0


X = np.array([[0.0], [100.0], [200.0], [400.0]])


def test_a_constant_is_never_above_the_floor() -> None:
    """Beyond the first, which took 8, all lie on 10 + x / 10."""
    times = np.array([8.0, 20.0, 30.0, 50.0])
    found = fit_bent_line(X, times, believed=np.ones(1))
    assert found.floor == found.constant == pytest.approx(8.0)
    share, wanted = X[1:, 0] / times[1:], 1.0 - 8.0 / times[1:]
    assert found.slopes[0] == pytest.approx((share @ wanted) / (share @ share), rel=1e-3)


def test_a_floor_is_that_of_the_shortest_in_whatever_order_they_come() -> None:
    x = np.array([0.0, 10.0, 20.0, 400.0, 800.0, 1600.0])[:, None]
    times = np.maximum(40.0, 0.1 * x[:, 0] + 5.0)
    times[:3] *= [0.9, 1.0, 1 / 0.9]
    for order in ([0, 1, 2, 3, 4, 5], [5, 2, 0, 4, 1, 3]):
        found = fit_bent_line(x[order], times[order], believed=np.full(1, 0.1))
        assert found.floor == pytest.approx(40.0)
        assert (found.slopes[0], found.constant) == pytest.approx((0.1, 5.0), rel=1e-3)


def test_short_times_count_as_much_as_long_ones() -> None:
    """Noise of long ones is more milliseconds than the floor, which five points agree on."""
    x = np.array([10.0, 50.0, 100.0, 200.0, 400.0, 5e3, 1e4, 2e4])
    times = np.maximum(45.0, 0.1 * x + 5.0)
    times[5:] *= [0.95, 0.96, 1.06]
    found = fit_bent_line(x[:, None], times, believed=np.full(1, 0.1))
    assert found.floor == pytest.approx(45.0)


def test_a_calls_cost_is_what_packing_saves_but_never_nearly_all() -> None:
    alone, other = point("attention", 64, 2, 1.0), point("attention", 64, 4, 9.0)

    def packed(ms: float) -> list[MeasuredPoint]:
        return [other, alone, point("attention", 64, 2, ms, num_sequences=5)]

    assert call_overhead(packed(0.3 + 5 * 0.7)) == pytest.approx(0.3)
    assert call_overhead(packed(5.5)) == 0.0  # packing costs
    assert call_overhead(packed(1.0)) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="no point both alone and packed"):
        call_overhead([alone, other])


def test_a_sequences_share_is_taken_from_the_largest_pack() -> None:
    points = [
        point("attention", 64, 2, 8.1, num_sequences=4),
        point("attention", 64, 2, 1.5),
        point("attention", 64, 4, 0.105),
        point("attention", 64, 2, 4.1, num_sequences=4, held_out=True),
        point("dense", 64, 2, 1.0),
    ]
    for order in (points, points[::-1]):
        found = {(p.top_k, p.held_out): p for p in sequence_shares(order, call_ms=0.1)}
        assert all(p.num_sequences == 1 for p in found.values())
        shares = {key: p.median_ms for key, p in found.items()}
        expected = {(2, False): 2.0, (4, False): 0.0105, (2, True): 1.0}
        assert shares == pytest.approx(expected), "at least a tenth of what was measured"


def test_the_rest_of_all_layers_is_a_layer_without_ends_and_attention_so_many_times() -> None:
    points = [
        point("layer", 128, 1, 10.0),
        point("ends", 128, 0, 3.0, n=4),
        point("own_block", 128, 1, 2.0, n=7),
        point("layer", 64, 1, 6.0),
        point("ends", 64, 0, 5.0),
        point("own_block", 64, 1, 4.0),
        point("layer", 256, 1, 6.0),
        point("ends", 256, 0, 5.0),
        point("layer", 512, 1, 6.0),
        point("own_block", 512, 1, 5.0),
    ]
    short, long = linear_points(points, num_layers=3)
    assert (short.part, short.length, long.length) == ("linear", 64, 128)
    assert short.median_ms == pytest.approx(5.0 + 3 * 0.06)  # never nothing
    assert long.median_ms == pytest.approx(3.0 + 3 * 5.0)
    assert (long.n, short.n) == (4, 5)
    assert (long.p20_ms, long.p80_ms) == pytest.approx((2.7 + 13.5, 3.6 + 18.0))


def law(length: int, top_k: int) -> float:
    return 0.1 + 1e-3 * length + 2e-5 * length * min(top_k * BLOCK_SIZE, length)


ATTENTION = [
    point("attention", length, top_k, law(length, top_k))
    for length in (64, 128, 256)
    for top_k in sorted({1, 2, length // BLOCK_SIZE})
]
ATTENTION.append(point("attention", 64, 2, 4 * (law(64, 2) - 0.1) + 0.1, num_sequences=4))


def linear(law_of_tokens: dict[int, float]) -> list[MeasuredPoint]:
    return [point("linear", length, 0, ms) for length, ms in law_of_tokens.items()]


@pytest.mark.parametrize(
    "measured",
    [
        {256: 4.0, 512: 6.0},
        {512: 6.0, 64: 9.0, 256: 4.0},
        {64: 9.0, 1024: 10.0, 128: 9.0, 512: 6.0, 256: 4.0},
    ],
    ids=["two", "three", "five"],
)
def test_work_by_tokens_is_told_by_the_longer_half(measured: dict[int, float]) -> None:
    parts = fit_parts([*ATTENTION, *linear(measured)], block_size=BLOCK_SIZE, num_layers=3)
    assert parts.ms_per_token == pytest.approx(2.0 / 256)
    assert parts.constant_ms == pytest.approx(2.0 + 3 * 0.1)


def test_one_length_does_not_tell_work_from_its_constant() -> None:
    with pytest.raises(ValueError, match="part = linear: 1 points: at least two"):
        fit_parts([*ATTENTION, *linear({64: 1.0})], block_size=BLOCK_SIZE, num_layers=3)


def test_points_held_out_change_no_part() -> None:
    points = [*ATTENTION, *linear({256: 4.0, 512: 6.0})]
    others = [replace(p, median_ms=7 * p.median_ms, held_out=True) for p in points]
    odd = point("attention", 64, 2, 1e-3, num_sequences=64, held_out=True)
    parts, same = (
        fit_parts(each, block_size=BLOCK_SIZE, num_layers=3)
        for each in (points, [odd, *others, *points])
    )
    assert (same.call_ms, same.ms_per_token) == (parts.call_ms, parts.ms_per_token)
    np.testing.assert_array_equal(same.surface.log_ms, parts.surface.log_ms)


def test_a_last_block_that_is_short_counts_among_all_blocks() -> None:
    short = [point("attention", 250, top_k, law(250, top_k)) for top_k in (1, 7)]
    with pytest.raises(ValueError, match="length = 250: the dense point, top_k 8, is missing"):
        fit_parts(
            [*ATTENTION, *short, *linear({256: 4.0, 512: 6.0})],
            block_size=BLOCK_SIZE,
            num_layers=3,
        )


@pytest.mark.parametrize(
    ("part", "top_k", "is_dense"),
    [("covered", 4, True), ("fixed", 3, False), ("fixed", 8, True), ("micro_batch", 8, False)],
)
def test_where_the_host_knows_that_budgets_cover_dense_attention_is_priced(
    part: str, top_k: int, is_dense: bool
) -> None:
    dense = [point("dense", n, n // BLOCK_SIZE, 0.1 + 5e-4 * n) for n in (64, 128, 256)]
    floor = point("floor", 32, 8, 9.0)
    model = fit_table(
        [*ATTENTION, *dense, *linear({256: 4.0, 512: 6.0}), floor],
        block_size=BLOCK_SIZE,
        num_layers=3,
        device_type="cuda",
        recompute_above=None,
    )
    pack = point(part, 128, top_k, 1.0, num_sequences=2, lengths=(128, 64))
    sparse = sum(law(n, min(top_k, n // BLOCK_SIZE)) - 0.1 for n in (128, 64))
    one_layer = 5e-4 * 192 if is_dense else sparse
    expected = 192 * 2.0 / 256 + 3 * one_layer
    assert predicted_work(model, [pack])[0] == pytest.approx(expected, rel=0.05)
