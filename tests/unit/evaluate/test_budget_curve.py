"""Scores against budgets: each point is the evaluation at that budget, the last one is dense."""

import json

import numpy as np
import pytest

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.budget_curve import (
    at_budget,
    doubling_budgets,
    draw_curve,
    enough_top_k,
    paired_interval,
    score_budgets,
)
from sbcore.evaluate.run import evaluate


@pytest.fixture
def folders(model_dir, tokenizer_dir, task_dir):
    return {
        "model_dir": model_dir,
        "tokenizer_dir": tokenizer_dir,
        "task_dir": task_dir,
    }


@pytest.fixture
def curve(folders, make_config, tmp_path):
    return score_budgets(make_config(kind="sparse"), **folders, out=tmp_path / "out", top_k=[8, 1])


def predictions(folder):
    return (folder / "first.jsonl").read_bytes()


def test_points_are_evaluations_at_their_budgets(curve, folders, make_config, tmp_path):
    assert [point["top_k"] for point in curve["budgets"]] == [1, 8, None]
    assert [point["budget_tokens"] for point in curve["budgets"]] == [4, 32, None]
    for point, name in zip(curve["budgets"], ("top_k_1", "top_k_8", "full"), strict=True):
        config = at_budget(make_config(kind="sparse"), point["top_k"])
        alone = evaluate(config, **folders, out=tmp_path / "alone" / name)
        assert point["scores"] == alone["scores"]
        assert point["score_mean"] == alone["score_mean"]
        assert predictions(tmp_path / "out" / name) == predictions(tmp_path / "alone" / name)


def test_small_budgets_answer_otherwise_and_large_ones_as_dense(curve, tmp_path):
    small, large, full = (
        predictions(tmp_path / "out" / name) for name in ("top_k_1", "top_k_8", "full")
    )
    assert small != full  # prompts have four blocks
    assert large == full


def test_summary_says_what_it_rests_on(curve, tmp_path):
    assert curve == json.loads((tmp_path / "out" / "budget_curve.json").read_text())
    assert (curve["variant"], curve["block_size"], curve["trained_top_k"]) == ("v", 4, 2)
    assert curve["num_examples"] == {"first": 5, "second": 3}
    assert curve["chance"] == {"first": 12.5}
    assert (tmp_path / "out" / "budget_curve.png").read_bytes().startswith(b"\x89PNG")


def test_finished_points_are_kept(curve, folders, make_config, tmp_path, monkeypatch):
    monkeypatch.setattr("sbcore.evaluate.answering.load_generator", None)  # would fail if called
    config = make_config(kind="sparse")
    again = score_budgets(config, **folders, out=tmp_path / "out", top_k=[1, 8])
    assert again == curve


def test_dense_variants_have_no_trained_budget(folders, make_config, tmp_path):
    found = score_budgets(make_config(max_examples=1), **folders, out=tmp_path, top_k=[1])
    assert found["trained_top_k"] is None


def test_budgets_double_up_to_the_prompt():
    assert doubling_budgets(4096, block_size=512) == [1, 2, 4]
    assert doubling_budgets(4097, block_size=512) == [1, 2, 4, 8]
    assert doubling_budgets(100, block_size=512) == [1]


@pytest.mark.parametrize("top_k", [[], [0, 1]])
def test_budgets_that_are_none(folders, make_config, tmp_path, top_k):
    with pytest.raises(SparseBalanceError, match="top_k"):
        score_budgets(make_config(), **folders, out=tmp_path / "out", top_k=top_k)
    assert not (tmp_path / "out").exists()


def test_differences_are_paired(curve):
    one, eight, full = (point["difference_to_full"]["first"] for point in curve["budgets"])
    assert eight == full == [0, 0]
    assert one[0] <= one[1]
    assert curve["enough_top_k"]["first"] in (1, 8)


def test_intervals_by_bootstrap():
    rng = np.random.default_rng(1)
    full = rng.integers(0, 2, 400) * 100.0
    worse = np.where(rng.random(400) < 0.2, 0.0, full)  # loses about every fifth right answer
    low, high = paired_interval(worse, full)
    mean, error = (worse - full).mean(), (worse - full).std() / 20
    assert low == pytest.approx(mean - 1.96 * error, abs=0.5)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.5)
    assert high < 0
    assert paired_interval(full, full) == [0, 0]


def test_enough_is_where_all_larger_budgets_keep_up():
    def point(top_k, low, high):
        return {"top_k": top_k, "difference_to_full": {"recall": [low, high]}}

    full = point(None, 0, 0)
    rising = [point(1, -9, 0.1), point(2, -9, -1), point(4, -2, 1), point(8, -1, 1), full]
    assert enough_top_k(rising, "recall") == 4
    assert enough_top_k([point(1, -9, -1), full], "recall") is None
    assert enough_top_k([full], "recall") is None


def test_figure_has_a_line_for_each_task():
    points = [
        {"top_k": top_k, "scores": {"recall": score, "needle": 90.0}, "score_mean": score}
        for top_k, score in ((1, 10.0), (2, 60.0), (None, 95.0))
    ]
    figure = draw_curve({"budgets": points, "trained_top_k": 2, "block_size": 32})
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert set(lines) == {"recall", "needle", "mean", "trained with"}
    assert list(lines["recall"].get_ydata()) == [10, 60, 95]
    assert list(lines["trained with"].get_xdata()) == [1, 1]
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["1", "2", "full"]
