"""Ranks share the prompts and merge what they answered; what one left, others take up."""

import json
import shutil
import subprocess
import sys

import pytest

from sbcore.evaluate.predictions import PredictionFile
from sbcore.evaluate.shards import ALONE, Shard, this_shard


@pytest.fixture
def start(tmp_path, task_dir, model_dir, tokenizer_dir, make_config):
    """Runs the command under torchrun and returns what it wrote to stderr."""

    def run(out, num_ranks, fails=False, **settings):
        config = tmp_path / "evaluate.json"
        config.write_text(make_config(batch_size=1, **settings).model_dump_json())
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)]
        command = ["-m", "sbcore.cli", "evaluate", "--config", config, "--model", model_dir]
        folders = ["--tokenizer", tokenizer_dir, "--tasks", task_dir, "--out", out]
        done = subprocess.run(
            [sys.executable, *words, *map(str, [*command, *folders])],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr

    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.json*")}


@pytest.mark.distributed
def test_two_ranks_write_what_one_writes_and_take_up_what_is_left(
    start, ask, make_config, tmp_path, task_dir
):
    ask(make_config(batch_size=1), task_dir, tmp_path / "one")
    start(tmp_path / "two", 2)
    found = contents(tmp_path / "two")
    found.pop("manifest.json")
    assert found == contents(tmp_path / "one")

    left = tmp_path / "left"  # two ranks were killed: three answers of the first task's five
    shutil.copytree(tmp_path / "two", left)
    texts = [json.loads(line)["pred"] for line in found["first.jsonl"].decode().splitlines()]
    state = json.loads(found["state.json"])
    (left / "first.jsonl").unlink()
    file = PredictionFile(left, "first", state["first"])
    file.append({0: "kept"}, rank=0)
    file.append({4: texts[4], 3: texts[3]}, rank=5)
    ask(make_config(batch_size=1), task_dir, left)
    rows = [json.loads(line)["pred"] for line in (left / "first.jsonl").read_text().splitlines()]
    assert rows == ["kept", *texts[1:]]
    assert not list(left.glob("*.partial*"))


@pytest.mark.distributed
def test_bad_input_is_said_once(start, tmp_path):
    error = start(tmp_path / "out", 2, fails=True, tasks=["firstt"])
    assert error.count("task = 'firstt': unknown. Did you mean 'first'?") == 1


def test_parts_are_dealt_out_whole():
    parts = list(range(7))
    shards = [Shard(rank, 3, rank, 3) for rank in range(3)]
    assert [list(shard.own(parts)) for shard in shards] == [[0, 3, 6], [1, 4], [2, 5]]
    assert list(ALONE.own(parts)) == parts


def test_without_torchrun_there_is_one():
    with this_shard() as shard:
        assert shard == ALONE
        assert shard.is_alone
        shard.wait()
