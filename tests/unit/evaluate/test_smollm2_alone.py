"""Seconds of LongBench's samples alone: rows and their manifest, from a tiny model."""

import csv
import importlib
import itertools
import json
import shutil
import sys
from types import SimpleNamespace

import pytest

from sbcore.artifacts import digest_file, git_state, package_versions

SCRIPTS = (
    *("quality_recipe", "quality_runs", "quality_training"),
    *("smollm2_recipe", "smollm2_train", "smollm2_alone"),
)
TASKS = ["first", "second"]


@pytest.fixture
def scripts(repository, monkeypatch):
    """The scripts by name; two described tasks stand for LongBench."""
    monkeypatch.syspath_prepend(repository / "docs" / "results")
    for name in SCRIPTS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = {name: importlib.import_module(name) for name in SCRIPTS}
    monkeypatch.setitem(found["smollm2_train"].TASK_SETS, "longbench", TASKS)
    yield found
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.fixture
def folder(scripts, model_dir, tokenizer_dir, task_dir, tmp_path):
    """What was prepared, as far as it is read here."""
    prepared = tmp_path / "prepared"
    shutil.copytree(model_dir, prepared / "start")
    shutil.copytree(tokenizer_dir, prepared / "start", dirs_exist_ok=True)
    shutil.copytree(task_dir, prepared / "tasks" / "longbench")
    for name in ("niah", "ruler"):
        (prepared / "tasks" / name).mkdir()
    scripts["smollm2_recipe"].small().write(prepared)
    return prepared


def run(scripts, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["smollm2_alone.py", *map(str, words), "--device", "cpu"])
    scripts["smollm2_alone"].main()


def test_a_row_for_each_reading_and_what_made_them(scripts, folder, tmp_path, monkeypatch):
    table, ticks = tmp_path / "alone.csv", itertools.count(0.0, 4.0)
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(scripts["smollm2_alone"], "time", clock)
    run(scripts, monkeypatch, folder, table)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["reading"] for row in rows] == ["before_dense", "before_baseline"]
    assert {row["device"][:3] for row in rows} == {"CPU"}
    assert [row["longbench_s"] for row in rows] == ["4.0", "4.0"]
    manifest = json.loads((tmp_path / "alone-manifest.json").read_text())
    assert manifest["command"] == ["smollm2_alone.py", str(folder), str(table), "--device", "cpu"]
    assert manifest["commit"] == git_state()["commit"]
    assert manifest["backend"] == "sdpa, torch"
    assert manifest["packages"] == package_versions()
    assert manifest["inputs"]["start"] == digest_file(folder / "start")
    assert manifest["seconds"] == 20.0


def test_answers_are_given_anew_and_a_commit_may_be_named(scripts, folder, tmp_path, monkeypatch):
    asked = []
    answer = scripts["smollm2_alone"].answer_set

    def recorded(recipe, folder, part, *rest, **named):
        asked.append(list(part.iterdir()))
        return answer(recipe, folder, part, *rest, **named)

    monkeypatch.setattr(scripts["smollm2_alone"], "answer_set", recorded)
    words = ("--readings", "before_baseline", "--commit", "f" * 40)
    for _ in range(2):
        run(scripts, monkeypatch, folder, tmp_path / "alone.csv", *words)
    assert asked == [[], []]
    manifest = json.loads((tmp_path / "alone-manifest.json").read_text())
    assert (manifest["commit"], manifest["dirty"]) == ("f" * 40, None)
    assert manifest["backend"] == "torch"
    assert len((tmp_path / "alone.csv").read_text().splitlines()) == 2


def test_the_committed_rows_have_the_columns_that_it_writes(scripts, repository):
    with (repository / "docs" / "results" / "smollm2-alone.csv").open() as file:
        assert tuple(next(csv.reader(file))) == scripts["smollm2_alone"].COLUMNS
