"""Scores against budgets: each point is the evaluation at that budget, the last one is dense."""

import json

import pytest
from rich.console import Console
from rich.progress import Progress

from sbcore.evaluate.budget_curve import (
    _budgets,
    _intervals,
    _Point,
    at_budget,
    doubling_budgets,
    enough_top_k,
    score_budgets,
)
from sbcore.evaluate.curve_files import draw_curve


@pytest.fixture
def start(model_dir, tokenizer_dir, task_dir):
    def run(config, out):
        return score_budgets(
            config,
            model_dir=model_dir,
            tokenizer_dir=tokenizer_dir,
            task_dirs=[task_dir],
            out=out,
            progress=Progress(console=Console(quiet=True), disable=True),
        )

    return run


@pytest.fixture
def curve(start, make_config, tmp_path):
    return start(make_config(kind="sparse", curve_top_k=[8, 1]), tmp_path / "out")


def predictions(folder):
    return (folder / "first.jsonl").read_bytes()


def test_points_are_evaluations_at_their_budgets(curve, ask, task_dir, make_config, tmp_path):
    assert [point["top_k"] for point in curve["budgets"]] == [1, 2, 8, None]  # 2 is the trained one
    assert [point["budget_tokens"] for point in curve["budgets"]] == [4, 8, 32, None]
    names = ("top_k_1", "top_k_2", "top_k_8", "full")
    for point, name in zip(curve["budgets"], names, strict=True):
        config = at_budget(make_config(kind="sparse"), point["top_k"])
        alone = ask(config, task_dir, tmp_path / "alone" / name)
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


def test_finished_points_are_kept(curve, start, make_config, tmp_path, monkeypatch):
    monkeypatch.setattr("sbcore.evaluate.answering.load_generator", None)  # would fail if called
    again = start(make_config(kind="sparse", curve_top_k=[1, 8]), tmp_path / "out")
    assert again == curve


def test_dense_variants_have_no_trained_budget(start, make_config, tmp_path):
    found = start(make_config(max_examples=1, curve_top_k=[1]), tmp_path)
    assert found["trained_top_k"] is None


def test_budgets_follow_the_longest_prompt(start, make_config, tmp_path):
    found = start(make_config(max_examples=2), tmp_path)  # 15 tokens, blocks of 4
    assert [point["top_k"] for point in found["budgets"]] == [1, 2, None]


@pytest.mark.parametrize(
    ("values", "budgets"),
    [
        ({}, [1, 2, 4, 8]),  # 51 tokens, blocks of 4
        ({"max_prompt_tokens": 16}, [1, 2]),  # the middle goes
        ({"max_examples": 1}, [1, 2]),  # the long one is the second
        ({"curve_top_k": [1]}, [1]),
        ({"curve_top_k": [1], "kind": "sparse"}, [1, 2]),  # 2 is the trained one
        ({"curve_top_k": [7, 2], "kind": "sparse"}, [2, 7]),
    ],
)
def test_budgets_are_those_asked_for_or_follow_the_longest_prompt_that_is_asked(
    make_config, tokenizer_dir, task_dir, values, budgets
):
    path = task_dir / "first.jsonl"
    rows = path.read_text().splitlines(keepends=True)
    rows[1] = rows[1].replace("some words", "x" * 48)
    path.write_text("".join(rows))
    assert _budgets(make_config(**values), tokenizer_dir, [task_dir]) == budgets


def test_a_dense_variant_is_asked_with_sparse_attention_at_each_budget(make_config):
    config = at_budget(make_config(), 3)
    assert (config.kind, config.attention.top_k) == ("sparse", 3)
    assert at_budget(config, None).kind == "dense"


def test_what_is_worse_than_full_attention_differs_by_less_than_nothing():
    point, full = (
        _Point(top_k, {"example_scores": {"recall": [score] * 3}})
        for top_k, score in ((1, 0.0), (None, 100.0))
    )
    assert _intervals(point, full) == {"recall": [-100.0, -100.0]}


def test_the_trained_budget_is_scored_and_marked_whatever_it_is(start, make_config, tmp_path):
    config = make_config(kind="sparse", max_examples=1)
    trained = config.attention.model_copy(update={"top_k": 3})
    found = start(config.model_copy(update={"attention": trained}), tmp_path)
    assert [point["top_k"] for point in found["budgets"]] == [1, 2, 3, None]
    lines = {line.get_label(): line for line in draw_curve(found).axes[0].lines}
    assert list(lines["trained with"].get_xdata()) == [2, 2]


def test_table_has_a_row_for_each_budget_and_task(curve, tmp_path):
    lines = (tmp_path / "out/budget_curve.csv").read_text().splitlines()
    assert lines[0] == "top_k,budget_tokens,task,num_examples,score,low,high"
    assert [line.split(",")[:4] for line in lines[1:]] == [
        [top_k, tokens, task, count]
        for top_k, tokens in (("1", "4"), ("2", "8"), ("8", "32"), ("full", ""))
        for task, count in (("first", "5"), ("second", "3"))
    ]
    scores = [str(point["scores"]["first"]) for point in curve["budgets"]]
    assert [line.split(",")[4] for line in lines[1::2]] == scores


def test_budgets_double_up_to_the_prompt():
    assert doubling_budgets(4096, block_size=512) == [1, 2, 4]
    assert doubling_budgets(4097, block_size=512) == [1, 2, 4, 8]
    assert doubling_budgets(100, block_size=512) == [1]


def test_differences_are_paired(curve):
    one, _, eight, full = (point["difference_to_full"]["first"] for point in curve["budgets"])
    assert eight == full == [0, 0]
    assert one[0] <= one[1]
    assert curve["enough_top_k"]["first"] in (1, 2, 8)


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
    summary = {"budgets": points, "trained_top_k": 2, "block_size": 32, "decoding": "dense"}
    figure = draw_curve(summary)
    assert figure.axes[0].get_xlabel().endswith("while the prompt is read")
    label = draw_curve(summary | {"decoding": "sparse"}).axes[0].get_xlabel()
    assert label == "top_k, blocks of 32 tokens"  # the answer is under the budget too
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert set(lines) == {"recall", "needle", "mean", "trained with"}
    assert list(lines["recall"].get_ydata()) == [10, 60, 95]
    assert list(lines["trained with"].get_xdata()) == [1, 1]
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["1", "2", "full"]
