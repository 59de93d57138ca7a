"""Tasks that several folders describe: the first folder's word holds, for names and for groups."""

import json

import pytest

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.task_folder import load_tasks

ROW = {"input": "q", "context": "c", "answers": ["a"], "all_classes": [], "length": 1}


@pytest.fixture
def folders(tmp_path):
    """Two folders that have task x, the first of category own, and a task of their own each."""
    for name, category in (("a", "own"), ("b", "mine")):
        folder = tmp_path / name
        folder.mkdir()
        entry = {"metric": "qa_f1", "max_new_tokens": 4, "template": f"{name} {{input}}"}
        entries = {"x": entry | {"category": category}, name: entry | {"category": "single"}}
        (folder / "tasks.json").write_text(json.dumps(entries))
        for task in entries:
            (folder / f"{task}.jsonl").write_text(json.dumps(ROW) + "\n")
    return [tmp_path / "a", tmp_path / "b"]


def test_the_first_folder_says_what_a_task_is_and_which_group_it_belongs_to(folders):
    for name in ("x", "own"):
        (loaded,) = load_tasks(folders, [name], max_examples=9)
        assert (loaded.task.name, loaded.task.category) == ("x", "own")
        assert loaded.template == "a {input}"
    with pytest.raises(SparseBalanceError, match="mine"):
        load_tasks(folders, ["mine"], max_examples=9)
    (loaded,) = load_tasks(folders[::-1], ["mine"], max_examples=9)
    assert loaded.template == "b {input}"


def test_groups_keep_the_order_of_the_folders(folders):
    loaded = load_tasks(folders, ["single"], max_examples=9)
    assert [each.task.name for each in loaded] == ["a", "b"]
