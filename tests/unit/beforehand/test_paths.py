"""Paths: what is not there, of the wrong kind, or not named where own data need it."""

from pathlib import Path
from typing import Any

import pytest

from sbcore.beforehand.paths import missing_paths, unnamed_paths
from sbcore.beforehand.tasks import unknown_tasks
from sbcore.config.load import load_config
from sbcore.config.schema import Config

PATHS = {
    "latency: {{table: {}}}": ("latency.table", "file"),
    "demo: {{lengths: {{csv: {}}}}}": ("demo.lengths.csv", "file"),
    "data: {{files: [{}]}}": ("data.files.0", "file"),
    "data: {{tokenizer: {}}}": ("data.tokenizer", "folder"),
    "model: {{path: {}}}": ("model.path", "folder"),
    "evaluate: {{longbench: {}}}": ("evaluate.longbench", "folder"),
    "evaluate: {{longbench_v2: {}}}": ("evaluate.longbench_v2", "folder"),
    "evaluate: {{ruler_files: {{4096: {}}}}}": ("evaluate.ruler_files.4096", "folder"),
}


@pytest.mark.parametrize("text", PATHS)
def test_a_path_is_there_as_a_file_or_as_a_folder(tmp_path: Path, text: str) -> None:
    key, kind = PATHS[text]
    config, there = tmp_path / "run.yaml", {"file": tmp_path / "a.file", "folder": tmp_path}
    there["file"].touch()

    def said_of(path: Path) -> list[str]:
        config.write_text(text.format(path))
        return [mistake.line for mistake in missing_paths(load_config(config))]

    for path in (tmp_path / "gone", there["folder" if kind == "file" else "file"]):
        wrong = f"no such {kind}. paths start at the checkout, correct it."
        assert said_of(path) == [f"{key} = {path}: {wrong}"]
    assert said_of(there[kind]) == []


def test_of_several_files_each_that_is_missing_has_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    files = [str(tmp_path / name) for name in "abc"]
    found = list(missing_paths(Config.model_validate({"data": {"files": files}})))
    assert [mistake.keys for mistake in found] == [("data", "files", 0), ("data", "files", 2)]
    assert [mistake.value for mistake in found] == [files[0], files[2]]


@pytest.mark.parametrize("text", PATHS)
def test_no_name_is_neither_file_nor_folder(tmp_path: Path, text: str) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(text.format("''"))
    (mistake,) = missing_paths(load_config(config))
    assert ".".join(map(str, mistake.keys)) == PATHS[text][0]


def test_beside_a_folder_without_a_name_nothing_is_said_of_its_tasks() -> None:
    assert not list(unknown_tasks(Config.model_validate({"evaluate": {"longbench": ""}})))


OWN = {"files": ["own.jsonl"]}
NO_TASKS: dict[str, Any] = {"tasks": []}
UNNAMED: list[tuple[dict[str, Any], list[str]]] = [
    ({"data": OWN, "evaluate": NO_TASKS}, ["data.tokenizer"]),
    ({"data": OWN | {"tokenizer": "t"}, "evaluate": NO_TASKS}, []),
    ({"data": OWN, "evaluate": NO_TASKS, "model": {"path": "m"}}, []),
    (
        {"data": OWN, "evaluate": NO_TASKS, "model": {"lora": {"save": "adapter"}}},
        ["data.tokenizer", "model.path"],
    ),
    (
        {"data": OWN, "evaluate": NO_TASKS, "model": {"path": "m", "lora": {"save": "adapter"}}},
        [],
    ),
    (
        {
            "data": OWN | {"tokenizer": "t"},
            "evaluate": NO_TASKS,
            "model": {"lora": {"save": "merged"}},
        },
        [],
    ),
    ({"data": OWN, "model": {"path": "m"}}, ["evaluate.longbench"]),
    ({"data": OWN, "model": {"path": "m"}, "evaluate": {"longbench": "l"}}, []),
    ({"data": OWN, "model": {"path": "m"}, "evaluate": {"niah": {}, "tasks": ["niah"]}}, []),
    ({"model": {"lora": {"save": "adapter"}}}, []),
]


@pytest.mark.parametrize(("config", "keys"), UNNAMED)
def test_own_data_come_with_what_the_demo_makes_for_itself(
    config: dict[str, Any], keys: list[str]
) -> None:
    found = unnamed_paths(Config.model_validate(config))
    assert [".".join(map(str, mistake.keys)) for mistake in found] == keys


def test_what_own_data_lack_is_said_with_all_ways_out() -> None:
    config = {"data": OWN, "model": {"lora": {"save": "adapter"}}}
    assert [mistake.line for mistake in unnamed_paths(Config.model_validate(config))] == [
        "data.tokenizer = None: data.files need a tokenizer. name a Hugging Face directory, or a "
        "model.path that holds one.",
        "model.path = None: adapters need a model to stand beside. name model.path, or "
        "lora.save: merged.",
        "evaluate.longbench = None: the demo's tasks fit the demo's tokenizer only. name a "
        "LongBench folder, or one with a tasks.json, and evaluate.tasks in it; evaluate.niah: {} "
        "makes tasks; evaluate.tasks: [] goes without an evaluation.",
    ]
