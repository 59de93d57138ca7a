"""The files: exact, the same from the same seed, and readable by the stages that follow."""

import json

import numpy as np
import pytest
from rich.progress import Progress

from sbcore.config.data import DataConfig, LengthDistribution
from sbcore.config.stages import PrepareStage
from sbcore.data.prepare import prepare
from sbcore.data.read import TokenStore
from sbcore.demo.folders import replace_folder_when_done
from sbcore.demo.lengths import draw_lengths
from sbcore.demo.tasks import TASKS
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.prompts import encode_prompt
from sbcore.evaluate.task_folder import load_tasks


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes(demo, make, tmp_path):
    again, other = make(tmp_path / "again"), make(tmp_path / "other", seed=1)
    assert contents(again) == contents(demo)
    assert contents(other)["train.jsonl"] != contents(demo)["train.jsonl"]
    assert contents(other)["tasks/recall.jsonl"] != contents(demo)["tasks/recall.jsonl"]


def test_the_prepared_samples_have_the_lengths_that_were_drawn(demo, tmp_path):
    with Progress(disable=True) as progress:
        summary = prepare(
            PrepareStage(data=DataConfig()),
            files=[demo / "train.jsonl"],
            tokenizer=demo / "tokenizer",
            out=tmp_path,
            progress=progress,
        )
    told = json.loads((demo / "summary.json").read_text())
    assert summary.num_tokens == told["num_tokens"]
    assert int(np.median(TokenStore(tmp_path).lengths)) == int(told["median_tokens"])
    assert summary.num_skipped == {}
    assert sum(told["num_samples_by_task"].values()) == told["num_samples"] == 40


def test_the_evaluator_reads_the_tasks(demo, demo_text):
    loaded = load_tasks([demo / "tasks"], list(TASKS), max_examples=100)
    assert [task.task.name for task in loaded] == list(TASKS)
    end = 1
    for task in loaded:
        assert len(task.rows) == 6
        assert 0 < (task.chance or 0) < 60
        for row in task.rows:
            prompt = encode_prompt(
                demo_text.tokenizer, row.context + row.input, chat=False, max_prompt_tokens=4096
            )
            further = "<k00+?>"  # as long as that of any key
            answer = demo_text.tokenizer(further.join(row.answers))["input_ids"]
            assert len(prompt.ids) + len(answer) + end == row.length
            if task.task.name != "next_line":
                assert len(answer) + end <= task.task.max_new_tokens


def test_lengths_follow_the_lognormal():
    config = LengthDistribution(median_tokens=400, sigma=1.0, min_tokens=32, max_tokens=100_000)
    lengths = draw_lengths(config, 20_000, np.random.default_rng(0))
    assert np.median(lengths) == pytest.approx(400, rel=0.03)
    assert np.std(np.log(lengths)) == pytest.approx(1.0, rel=0.03)
    bounded = draw_lengths(
        config.model_copy(update={"min_tokens": 300, "max_tokens": 500}),
        1000,
        np.random.default_rng(0),
    )
    assert (bounded.min(), bounded.max()) == (300, 500)


@pytest.mark.parametrize("header", ["file,chars,tokens\n", ""])
def test_lengths_come_from_the_first_numeric_column_of_a_csv(tmp_path, header):
    path = tmp_path / "lengths.csv"
    path.write_text(header + "a.py,100,1\nb.py,200,2\n")
    config = LengthDistribution(csv=str(path))
    assert set(draw_lengths(config, 100, np.random.default_rng(0))) == {100, 200}


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (None, r"^demo.lengths.csv = \S+: no such file\. correct"),
        ("", r"^demo.lengths.csv = \S+: no numeric column\. give"),
        ("a,b\nx,y\n", r"^demo.lengths.csv = \S+: no numeric column\. give"),
        ("n\n5\nsix\n", r"lengths.csv:3: column 1 = \['six'\]: not a number\. correct"),
    ],
)
def test_a_csv_without_lengths_is_refused(tmp_path, content, pattern):
    path = tmp_path / "lengths.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SparseBalanceError, match=pattern):
        draw_lengths(LengthDistribution(csv=str(path)), 3, np.random.default_rng(0))


def test_a_folder_that_fails_leaves_the_old_one_alone(tmp_path):
    folder = tmp_path / "model"
    with replace_folder_when_done(folder) as part:
        (part / "a").write_text("old")
    with pytest.raises(FileNotFoundError), replace_folder_when_done(folder) as part:
        (part / "missing" / "a").write_text("new")
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("a", "old")]
    assert list(tmp_path.iterdir()) == [folder]
