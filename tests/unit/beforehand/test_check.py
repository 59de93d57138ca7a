"""What is asked for and would be missing after hours is said before, all of it in one round."""

import subprocess
import sys
from pathlib import Path

import pytest

from sbcore.beforehand.check import check_beforehand
from sbcore.config.load import load_config
from sbcore.config.schema import Config
from sbcore.errors import ConfigError


def lines_of(file: Path, text: str) -> list[str]:
    file.write_text(text)
    return said_of(load_config(file), file)


def said_of(config: Config, *files: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_beforehand(config, files)
    return str(caught.value).splitlines()


def test_paths_and_tasks_are_said_at_once_in_the_file_s_order(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    text = (
        "latency:\n  lengths: [512]\n"
        "evaluate:\n  tasks: [recalls, recall, conut]\n"
        "demo: {lengths: {csv: gone.csv}}\n"
        "model: {path: gone}\n"
        "topology: {device: cuda}\n"
    )
    keys = [line.removeprefix(str(file)).partition(" = ")[0] for line in lines_of(file, text)]
    assert keys == [
        ":2: latency.lengths",
        ":4: evaluate.tasks",
        ":4: evaluate.tasks",
        ":5: demo.lengths.csv",
        ":6: model.path",
        ": attention.block_size",  # nobody wrote it
    ]


def test_every_task_that_a_folder_lacks_is_named_once(tmp_path: Path) -> None:
    folder, file = tmp_path / "own", tmp_path / "run.yaml"
    folder.mkdir()
    text = f"evaluate: {{longbench: {folder}, tasks: [qasper, hotpotqa, qasper]}}\n"
    first, second = lines_of(file, text)
    assert first.startswith(f"{file}:1: {folder}: qasper: no qasper.jsonl or ")
    assert second.startswith(f"{file}:1: {folder}: hotpotqa: no hotpotqa.jsonl or ")


def test_a_broken_description_is_said_once_for_all_tasks(tmp_path: Path) -> None:
    folder, file = tmp_path / "own", tmp_path / "run.yaml"
    folder.mkdir()
    (folder / "tasks.json").write_text("{")
    (line,) = lines_of(file, f"evaluate: {{longbench: {folder}, tasks: [a, b]}}\n")
    assert line.startswith(f"{file}:1: {folder}/tasks.json")


def test_of_own_data_without_a_folder_the_folder_is_missed_and_no_task(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text("{}\n")
    data = f"data: {{files: [{tmp_path / 'own.jsonl'}], tokenizer: {tmp_path}}}\n"
    (line,) = lines_of(tmp_path / "run.yaml", f"{data}evaluate: {{tasks: [qasper]}}\n")
    assert ":2: evaluate.longbench = None: " in line


def test_of_a_folder_that_is_missing_no_task_is_missed(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path / "run.yaml", "evaluate: {longbench: gone, tasks: [qasper]}\n")
    assert "evaluate.longbench = gone: no such folder." in line


def test_own_data_need_a_tokenizer_and_tasks(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text("{}\n")
    file = tmp_path / "run.yaml"
    lines = lines_of(file, f"seed: 1\ndata: {{files: [{tmp_path / 'own.jsonl'}]}}\n")
    assert lines[0].startswith(f"{file}:2: data.tokenizer = None: data.files need a tokenizer.")
    assert lines[1].startswith(f"{file}: evaluate.longbench = None: the demo's tasks fit ")
    assert len(lines) == 2


def test_adapters_alone_need_a_model_where_the_demo_makes_none(tmp_path: Path) -> None:
    file, own = tmp_path / "run.yaml", tmp_path / "own.jsonl"
    own.write_text("{}\n")
    lora = "model: {lora: {save: adapter}}\n"
    data = f"data: {{files: [{own}], tokenizer: {tmp_path}}}\nevaluate: {{tasks: []}}\n"
    (line,) = lines_of(file, data + lora)
    assert line.startswith(f"{file}:3: model.path = None: adapters need a model to stand beside.")
    file.write_text(lora)
    check_beforehand(load_config(file), [file])


def test_files_come_in_the_order_in_which_they_are_merged(tmp_path: Path) -> None:
    first, second = tmp_path / "b.yaml", tmp_path / "a.yaml"
    first.write_text("\n\nmodel: {path: gone}\n")
    second.write_text("evaluate: {tasks: [recalls]}\n")
    config = load_config(first).model_copy(update={"evaluate": load_config(second).evaluate})
    places = [line.partition(": ")[0] for line in said_of(config, first, second)]
    assert places == [f"{first}:3", f"{second}:1"]


def test_what_nobody_wrote_stands_in_the_first_file_behind_what_its_lines_hold(
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "b.yaml", tmp_path / "a.yaml"
    first.write_text("topology: {device: cuda}\n")
    second.write_text("model: {path: gone}\n")
    config = load_config(first).model_copy(update={"model": load_config(second).model})
    keys = [line.partition(" = ")[0] for line in said_of(config, first, second)]
    assert keys == [f"{second}:1: model.path", f"{first}: attention.block_size"]


def test_a_configuration_of_no_file_is_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"^configuration: attention.block_size = 32: "):
        check_beforehand(Config.model_validate({"topology": {"device": "cuda"}}), [])


def test_what_is_there_is_let_be(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("evaluate: {tasks: [recall]}\n")
    check_beforehand(load_config(file), [file])


def test_nothing_that_takes_seconds_is_imported() -> None:
    heavy = "{'torch', 'transformers', 'polars', 'pyarrow', 'snakemake'}"
    code = f"import sys, sbcore.beforehand.check; sys.exit(str({heavy} & {{*sys.modules}} or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
