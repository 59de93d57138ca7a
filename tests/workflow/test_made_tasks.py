"""Evaluation tasks that the pipeline makes: once, and for own data without any others."""

import pytest
from fake_pipeline import Pipeline

pytestmark = pytest.mark.workflow

NIAH = "evaluate: {tasks: [niah], niah: {}, ruler_files: {4096: data}}\n"


def commands(pipeline: Pipeline, text: str) -> str:
    """Returns what a dry run would call."""
    (pipeline.folder / "mine.yaml").write_text(text)
    done = pipeline.call("-n", "-p", "--configfile", "mine.yaml")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def folder(pipeline: Pipeline) -> None:
    for name in ("data", "tokenizer"):
        (pipeline.folder / name).mkdir()
    (pipeline.folder / "data" / "mine.jsonl").write_text("{}\n")


@pytest.mark.usefixtures("folder")
def test_own_data_are_evaluated_on_made_tasks(pipeline: Pipeline) -> None:
    own = "run: mine\ndata: {files: [data/mine.jsonl], tokenizer: tokenizer}\n"
    shown = commands(pipeline, own + NIAH)
    assert shown.count("sb make-tasks --config results/mine/config/tasks.json") == 1
    asked = "--tasks results/mine/tasks/niah --tasks results/mine/tasks/ruler_files --out"
    assert asked in shown
    assert "demo/tasks" not in shown


@pytest.mark.usefixtures("folder")
def test_the_demo_is_evaluated_on_its_own_and_made_tasks(pipeline: Pipeline) -> None:
    shown = commands(pipeline, NIAH)
    assert "--tasks results/demo/demo/tasks --tasks results/demo/tasks/niah --tasks" in shown


def test_several_gpus_share_the_prompts(pipeline: Pipeline) -> None:
    many = "torchrun --standalone --nproc-per-node 4 -m sbcore.cli evaluate --config"
    gpus = "topology: {num_ranks: 4, device: cuda}\nattention: {block_size: 64}\n"
    assert many in commands(pipeline, gpus)
    assert many not in commands(pipeline, "topology: {num_ranks: 4, device: cpu}\n")


def test_nothing_is_made_without_being_asked_for(pipeline: Pipeline) -> None:
    assert "make-tasks" not in commands(pipeline, "evaluate: {tasks: [recall]}\n")
