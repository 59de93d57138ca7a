"""Intervals of paired differences: against theory, and for what they must never do."""

import numpy as np
import pytest

from sbcore.evaluate.bootstrap import _resampled_means, paired_difference


def test_interval_of_one_task_is_that_of_theory():
    rng = np.random.default_rng(1)
    full = rng.integers(0, 2, 400) * 100.0
    worse = np.where(rng.random(400) < 0.2, 0.0, full)  # loses about every fifth right answer
    found = paired_difference({"a": worse}, {"a": full})
    mean, error = (worse - full).mean(), (worse - full).std() / 20
    assert found.mean == pytest.approx(mean, abs=0.005)
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.5)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.5)
    assert found.is_distinguishable
    assert found.num_examples == 400


def test_equal_scores_do_not_differ():
    scores = {"a": [0.0, 100.0, 50.0], "b": [1.0]}
    found = paired_difference(scores, scores)
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert not found.is_distinguishable


def test_what_rounds_to_nothing_has_no_sign():
    found = paired_difference({"a": [-0.001, -0.002]}, {"a": [0.0, 0.0]})
    assert [f"{x}" for x in (found.mean, found.low, found.high)] == ["0.0"] * 3


def test_tasks_weigh_alike_however_many_examples_they_have():
    found = paired_difference(
        {"a": [100.0] * 300, "b": [0.0] * 3}, {"a": [0.0] * 300, "b": [0.0] * 3}
    )
    assert (found.mean, found.low, found.high) == (50, 50, 50)


def test_pairing_tells_apart_what_spread_would_hide():
    rng = np.random.default_rng(2)
    others = rng.random(200) * 100
    scores = others + 1 + rng.normal(0, 2, 200)  # 1 point better in a spread of 29
    better = paired_difference({"a": scores}, {"a": others})
    assert better.low > 0
    assert better.is_distinguishable
    shuffled = rng.permutation(others)
    assert not paired_difference({"a": scores}, {"a": shuffled}).is_distinguishable


def test_equal_scores_give_equal_intervals():
    scores = {"a": np.random.default_rng(5).random(50) * 100}
    zeros = {"a": np.zeros(50)}
    assert paired_difference(scores, zeros) == paired_difference(scores, zeros)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        values = rng.normal(0.5, 1, 60)
        found = paired_difference({"a": values}, {"a": np.zeros(60)})
        held += found.low <= 0.5 <= found.high
    assert 180 <= held <= 199


@pytest.mark.parametrize("largest_draw", [333, 50, 49])
def test_many_examples_are_drawn_in_parts(largest_draw, monkeypatch):
    values = {"a": np.random.default_rng(4).random(50)}
    zeros = {"a": np.zeros(50)}
    whole = paired_difference(values, zeros)
    monkeypatch.setattr("sbcore.evaluate.bootstrap._LARGEST_DRAW", largest_draw)
    assert paired_difference(values, zeros) == whole
    draws = _resampled_means(values["a"], np.random.default_rng(0))
    assert len(draws) == 2000
