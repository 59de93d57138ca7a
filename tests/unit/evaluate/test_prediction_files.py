"""Prediction files while they grow: whose parts count, in which order they end up."""

import json

import pytest

from sbcore.evaluate.predictions import PredictionFile
from sbcore.evaluate.rows import ExampleRow

ROWS = [
    ExampleRow(input=word, context="", answers=[word], all_classes=None, length=1) for word in "abc"
]


def test_parts_are_named_as_users_find_them(tmp_path):
    file = PredictionFile(tmp_path, "first", "digest")
    assert [file.partial(rank).name for rank in (0, 2)] == [
        "first.jsonl.partial",
        "first.jsonl.partial.2",
    ]


@pytest.mark.parametrize("task", ["first", "own [1]*"])
def test_parts_of_all_ranks_become_one_file_in_the_order_of_the_task(tmp_path, task):
    file, longer = (PredictionFile(tmp_path, name, "digest") for name in (task, f"{task}_e"))
    longer.append({0: "of another task"}, rank=0)
    file.begin({})
    file.append({2: "three"}, rank=0)
    file.append({1: "zwei, 二", 0: "one"}, rank=4)
    assert file.kept() == {0: "one", 1: "zwei, 二", 2: "three"}
    file.finish(file.kept(), ROWS)
    lines = file.path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["pred"], row["answers"]) for row in rows] == [
        ("one", ["a"]),
        ("zwei, 二", ["b"]),
        ("three", ["c"]),
    ]
    assert "二" in lines[1], "readable as it is"
    assert (file.partials, longer.partials) == ([], [longer.partial(0)])


def test_beginning_anew_throws_away_what_other_ranks_left(tmp_path):
    file = PredictionFile(tmp_path, "first", "digest")
    file.append({0: "left"}, rank=3)
    file.begin({1: "kept"})
    assert file.kept() == {1: "kept"}
    assert file.partials == [file.partial(0)]
    assert PredictionFile(tmp_path, "first", "of other settings").kept() == {}
