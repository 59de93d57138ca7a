import numpy as np
import pyarrow.parquet as pq
import pytest

from sbcore.tune.coverage import CoverageModel, coverage_at
from sbcore.tune.coverage_file import write_coverage
from sbcore.tune.ladder import make_ladder

LADDER = make_ladder(64, 8)
LENGTHS = np.array([100, 120, 1500])


def taught(num_layers=2):
    empty = CoverageModel.empty(LADDER, num_layers=num_layers, block_size=32, ema_decay=0.5)
    rates = np.linspace(0.1, 0.4, num_layers * len(LENGTHS)).reshape(num_layers, -1, 1)
    curves = 1 - np.exp(-rates * LADDER)
    return empty.updated(LENGTHS, curves), curves


def test_the_file_has_every_known_average_and_no_other(tmp_path):
    model, curves = taught()
    write_coverage(model, tmp_path / "coverage.parquet")
    table = pq.read_table(tmp_path / "coverage.parquet").to_pydict()
    assert len(table["layer"]) == 2 * 2 * len(LADDER)
    assert set(table["max_tokens"]) == {128, 2048}
    rows = list(zip(*(table[name] for name in ("layer", "max_tokens", "top_k")), strict=True))
    at = rows.index((1, 2048, 8))
    assert table["coverage"][at] == pytest.approx(curves[1, 2, np.searchsorted(LADDER, 8)])
    assert (table["count"][at], table["count"][rows.index((0, 128, 8))]) == (1, 2)


def test_an_untaught_model_has_no_rows(tmp_path):
    write_coverage(
        CoverageModel.empty(LADDER, num_layers=2, block_size=32, ema_decay=0.5), tmp_path / "c"
    )
    assert pq.read_table(tmp_path / "c").num_rows == 0


def test_what_is_expected_of_targets_is_what_their_curves_say():
    model, _ = taught()
    fixed = np.full((2, 3), 8)
    assert model.expected_delta(LENGTHS, fixed, top_k=8) == pytest.approx(0.0)
    targets = np.array([[3, 2, 20], [8, 3, 9]])  # cut below what the sequences have
    curves = model.expected(LENGTHS)
    base = curves[..., np.searchsorted(LADDER, 8)]
    wanted = [
        np.interp(targets[layer, n], LADDER, curves[layer, n]) - base[layer, n]
        for layer, n in np.ndindex(2, 3)
    ]
    mean = np.average(np.reshape(wanted, (2, 3)).mean(axis=0), weights=LENGTHS)
    assert model.expected_delta(LENGTHS, targets, top_k=8) == pytest.approx(100 * mean)


def test_unknown_lengths_are_left_out_of_what_is_expected():
    model, _ = taught()
    lengths, targets = np.append(LENGTHS, 400), np.full((2, 4), 4)
    with_unknown = model.expected_delta(lengths, targets, top_k=8)
    assert with_unknown == pytest.approx(model.expected_delta(LENGTHS, targets[:, :3], top_k=8))
    assert model.expected_delta(lengths[3:], targets[:, 3:], top_k=8) is None


def test_coverage_between_rungs_is_on_the_line():
    curves = np.array([[[0.2, 0.6, 1.0]]])
    ladder = np.array([1, 3, 7])
    found = [coverage_at(curves, ladder, np.array([[k]]))[0, 0] for k in (1, 2, 5, 7, 99)]
    assert found == pytest.approx([0.2, 0.4, 0.8, 1.0, 1.0])


def test_a_restored_model_goes_on_as_the_saved_one():
    model, curves = taught()
    restored = CoverageModel.empty(LADDER, num_layers=2, block_size=32, ema_decay=0.5).restored(
        {name: value.copy() for name, value in model.state().items()}
    )
    one, other = (x.updated(LENGTHS, curves**2) for x in (model, restored))
    np.testing.assert_array_equal(one.curves, other.curves)
    np.testing.assert_array_equal(one.counts, other.counts)
