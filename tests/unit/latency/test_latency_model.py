"""The table model, on a profile made from a formula, so that what it should say is known."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbcore.artifacts import write_json
from sbcore.errors import SparseBalanceError
from sbcore.latency.isotonic import isotonic
from sbcore.latency.model import TableLatencyModel, fit_table
from sbcore.latency.surface import fit_surface
from sbcore.latency.table import HEADER, TABLE, MeasuredPoint, write_points

BLOCK_SIZE = 32
LENGTHS = (64, 128, 256, 512, 1024)
BUDGETS = (1, 2, 4, 8)


def attention_law(length: int, top_k: int) -> float:
    return 0.1 + 1e-3 * length + 2e-5 * length * min(top_k * BLOCK_SIZE, length)


def point(part: str, length: int, top_k: int, ms: float, **changed: object) -> MeasuredPoint:
    known = {"num_sequences": 1, "n": 3, "held_out": False} | changed
    return MeasuredPoint(
        part, length, top_k, known["num_sequences"], ms, ms, ms, 3, known["held_out"]
    )


def attention_points(
    law: Callable[[int, int], float] = attention_law, lengths: Iterable[int] = LENGTHS
) -> list[MeasuredPoint]:
    return [
        point("attention", length, top_k, law(length, top_k))
        for length in lengths
        for top_k in [k for k in BUDGETS if k * BLOCK_SIZE < length] + [-(-length // BLOCK_SIZE)]
    ]


def all_points() -> list[MeasuredPoint]:
    packed = 4 * (attention_law(64, 2) - 0.1) + 0.1
    return [
        *attention_points(),
        point("attention", 64, 2, packed, num_sequences=4),
        *(point("linear", length, 0, 2.0 + 0.01 * length) for length in LENGTHS),
        point("floor", 32, 8, 9.0),
        point("optimizer", 0, 0, 1.0),
    ]


def write_profile(
    folder: Path, points: list[MeasuredPoint] | None = None, *, device: str = "test"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_points(folder / TABLE, all_points() if points is None else points)
    facts = {"device": device, "device_type": "cuda", "block_size": BLOCK_SIZE, "num_layers": 2}
    facts["recompute_above_tokens"] = None
    write_json(folder / HEADER, facts)
    return folder


def model(device_type: str = "cuda") -> TableLatencyModel:
    return fit_table(
        all_points(),
        block_size=BLOCK_SIZE,
        num_layers=2,
        device_type=device_type,
        recompute_above=None,
    )


def at(length: int, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([length]), np.array([top_k])


@pytest.mark.parametrize(("length", "top_k"), [(64, 1), (512, 4), (1024, 8), (1024, 32)])
def test_measured_points_are_met(length: int, top_k: int) -> None:
    share = attention_law(length, top_k) - 0.1  # the call is not the sequence's
    assert model().attention_ms(*at(length, top_k)) == pytest.approx(share)


def test_between_the_points_the_law_is_met() -> None:
    for length, top_k in ((724, 3), (700, 6), (800, 25), (91, 3)):
        share = attention_law(length, top_k) - 0.1
        assert model().attention_ms(*at(length, top_k)) == pytest.approx(share, rel=0.08)


def test_whole_model_splits_into_constant_and_shares() -> None:
    table = model()
    assert table.call_ms == pytest.approx(0.1)
    assert table.constant_ms == pytest.approx(2.0 + 2 * 0.1)
    assert table.floor_ms == pytest.approx(9.0 - 2.2)
    expected = 2 * (attention_law(512, 4) - 0.1) + 0.01 * 512
    assert table.predict(*at(512, 4)) == pytest.approx(expected)


def test_on_a_cpu_the_host_is_not_hidden_behind_the_work() -> None:
    gpu, cpu = model("cuda"), model("cpu")
    assert cpu.floor_ms == 0.0
    tiny = gpu.predict(*at(BLOCK_SIZE, 1))[0]
    assert cpu.constant_ms + tiny == pytest.approx(9.0)  # the floor that was measured


def test_budgets_by_layer_add_up() -> None:
    table, lengths = model(), np.array([512, 1024])
    by_layer = np.array([[1, 2], [8, 4]])
    each = [table.attention_ms(lengths, layer) for layer in by_layer]
    assert table.predict(lengths, by_layer) == pytest.approx(sum(each) + table.linear_ms(lengths))


def test_a_covered_sequence_costs_its_dense_time() -> None:
    table = model()
    assert table.attention_ms(*at(256, 8)) == table.attention_ms(*at(256, 500))


noise = st.lists(st.floats(0.5, 2.0), min_size=30, max_size=30)


@settings(max_examples=50, deadline=None)
@given(factors=noise, lengths=st.lists(st.integers(1, 4000), min_size=2, max_size=2))
def test_time_rises_with_length_and_budget_whatever_was_measured(
    factors: list[float], lengths: list[int]
) -> None:
    noisy = [
        replace(p, median_ms=p.median_ms * f)
        for p, f in zip(attention_points(), factors, strict=False)
    ]
    surface = fit_surface(noisy, block_size=BLOCK_SIZE)
    budgets = np.arange(1, 130)
    short, long = (surface.milliseconds(np.full(129, n), budgets) for n in sorted(lengths))
    assert (np.diff(short) >= -1e-9 * short[1:]).all()
    assert (long >= short * (1 - 1e-9)).all()
    assert (short > 0).all()


def test_adjustments_are_reported() -> None:
    assert fit_surface(attention_points(), block_size=BLOCK_SIZE).adjustments.count == 0
    slow = [
        replace(p, median_ms=p.median_ms * 3) if p.top_k == 4 else p for p in attention_points()
    ]
    adjusted = fit_surface(slow, block_size=BLOCK_SIZE).adjustments
    assert adjusted.count > 0
    assert 0 < adjusted.mean < adjusted.largest < 2


def test_a_change_of_a_hundredth_is_an_adjustment_too() -> None:
    slower = [
        replace(p, median_ms=p.median_ms * 1.01) if (p.length, p.top_k) == (256, 4) else p
        for p in attention_points(lambda length, top_k: 1.0 + length / 1024)
    ]
    adjusted = fit_surface(slower, block_size=BLOCK_SIZE).adjustments
    assert adjusted.count > 1
    assert 0.001 < adjusted.largest < 0.01


def test_what_was_measured_stays_where_only_what_is_interpolated_falls_below_it() -> None:
    """512 was measured at budgets 1 and 16: halfway between it would be faster than 256."""
    measured = {
        256: {1: 1.0, 4: 2.9, 8: 3.0},
        512: {1: 1.0, 16: 5.0},
        1024: {1: 1.5, 4: 6.0, 8: 7.0, 16: 8.0, 32: 9.0},
    }
    table = [
        point("attention", length, top_k, ms)
        for length, row in measured.items()
        for top_k, ms in row.items()
    ]
    surface = fit_surface(table, block_size=BLOCK_SIZE)
    for length, row in measured.items():
        for top_k, ms in row.items():
            assert surface.milliseconds(*at(length, top_k))[0] == pytest.approx(ms, rel=1e-4)


def test_between_two_budgets_time_is_a_power_of_the_budget() -> None:
    """Also where a length lacks a budget that others have."""
    ends = {1: 1.0, 2: 1.5, 4: 2.0, 8: 3.0, 16: 4.0, 32: 16.0}
    table = [
        point("attention", length, top_k, ends[top_k])
        for length in (512, 1024)
        for top_k in ends
        if top_k * BLOCK_SIZE <= length and (length, top_k) != (1024, 16)
    ]
    surface = fit_surface(table, block_size=BLOCK_SIZE)
    assert surface.milliseconds(*at(1024, 16))[0] == pytest.approx((3.0 * 16.0) ** 0.5)


def test_isotonic_pools_neighbours_that_fall() -> None:
    pooled = isotonic(np.array([1.0, 4.0, 2.0, 5.0]), np.array([1.0, 1.0, 3.0, 1.0]))
    assert pooled.tolist() == [1.0, 2.5, 2.5, 5.0]


def test_extrapolation_is_flagged_and_follows_the_last_slopes() -> None:
    table = model()
    assert table.extrapolates(np.array([1024, 1025]), np.array([8, 8])).tolist() == [False, True]
    ratio = table.attention_ms(*at(4096, 200)) / table.attention_ms(*at(2048, 200))
    assert 3 < ratio[0] <= 4


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        ({"block_size": 64}, "block_size = 32: the table was measured for another block_size"),
        ({"block_size": 32, "device": "H100"}, "device = test: the table was measured for another"),
    ],
)
def test_a_table_of_something_else_is_refused(
    tmp_path: Path, ask: dict[str, object], told: str
) -> None:
    folder = write_profile(tmp_path)
    assert TableLatencyModel.read(folder, block_size=32, device="test").num_layers == 2
    with pytest.raises(SparseBalanceError, match=told):
        TableLatencyModel.read(folder, **ask)


def test_a_point_holds_the_middle_of_its_times_and_their_20th_and_80th_percentile() -> None:
    made = MeasuredPoint.of(all_points()[0].grid_point, np.arange(11.0) + 1.0, peak_gib=None)
    assert (made.median_ms, made.p20_ms, made.p80_ms, made.n) == (6.0, 3.0, 9.0, 11)


def broken_profiles() -> dict[str, tuple[list, str]]:
    points = all_points()
    return {
        "nan": (
            [*points, point("attention", 96, 1, float("nan"))],
            r"row \d+ \(attention, length 96, top_k 1\): median_ms = nan: not a time",
        ),
        "zero": ([*points, point("linear", 96, 0, 0.0)], "median_ms = 0.0: not a time"),
        "negative": ([*points, point("linear", 96, 0, -1.0)], "median_ms = -1.0: not a time"),
        "no floor": ([p for p in points if p.part != "floor"], "part = floor: missing"),
        "no linear": ([p for p in points if p.part != "linear"], "part = linear: 0 points"),
        "no dense": (
            [p for p in points if (p.length, p.top_k) != (512, 16)],
            "length = 512: the dense point, top_k 16, is missing",
        ),
        "one length": (
            [p for p in points if p.length in (0, 32, 64) or p.part == "linear"],
            "1 lengths and 2 budgets: at least two of each are needed",
        ),
    }


@pytest.mark.parametrize("name", broken_profiles())
def test_a_broken_table_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    points, told = broken_profiles()[name]
    with pytest.raises(SparseBalanceError, match=told) as caught:
        TableLatencyModel.read(write_profile(tmp_path, points), block_size=32)
    assert "\n" not in str(caught.value)
    assert "rerun the stage profile-latency" in str(caught.value)


def test_a_header_without_layers_is_refused(tmp_path: Path) -> None:
    folder = write_profile(tmp_path)
    write_json(folder / HEADER, {"device": "test", "block_size": BLOCK_SIZE})
    with pytest.raises(SparseBalanceError, match="num_layers: missing"):
        TableLatencyModel.read(folder, block_size=BLOCK_SIZE)


def test_a_missing_column_or_file_is_named(tmp_path: Path) -> None:
    folder = write_profile(tmp_path)
    table = pq.read_table(folder / TABLE)
    pq.write_table(table.drop_columns(["held_out"]), folder / TABLE)
    with pytest.raises(SparseBalanceError, match="column held_out: missing"):
        TableLatencyModel.read(folder, block_size=32)
    (folder / TABLE).write_text("no table")
    with pytest.raises(SparseBalanceError, match="not parquet"):
        TableLatencyModel.read(folder, block_size=32)
    (folder / TABLE).unlink()
    with pytest.raises(SparseBalanceError, match=r"missing\. run the stage profile-latency"):
        TableLatencyModel.read(folder, block_size=32)


def test_dense_attention_serves_what_the_host_knows_to_be_covered() -> None:
    dense = [point("dense", n, -(-n // BLOCK_SIZE), 0.1 + 5e-4 * n) for n in LENGTHS]
    table = fit_table(
        [*all_points(), *dense],
        block_size=BLOCK_SIZE,
        num_layers=2,
        device_type="cuda",
        recompute_above=None,
    )
    lengths = np.array([256, 512])
    found = table.covered(lengths, np.array([[8, 8], [16, 9]]))
    assert found is not None
    assert found.reach.tolist() == [8 * BLOCK_SIZE, 8 * BLOCK_SIZE]
    at_budget = table.attention_ms(lengths, np.array([8, 8]))
    assert found.saving_ms == pytest.approx(2 * (at_budget - 5e-4 * lengths))
    assert model().covered(lengths, np.array([8, 8])) is None  # nothing dense was measured


def test_micro_batches_up_to_the_limit_are_not_recomputed() -> None:
    recomputed = [replace(p, recompute=True) if p.part == "attention" else p for p in all_points()]
    shares = replace(
        fit_table(
            recomputed, block_size=BLOCK_SIZE, num_layers=2, device_type="cuda", recompute_above=512
        ),
        other_share=0.75,
    ).shares
    assert [shares.at(512), shares.at(513)] == [0.75, 1.0]
    assert shares.least(np.array([512, 513])).tolist() == [0.75, 1.0]
    assert model().shares.even
