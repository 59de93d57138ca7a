"""Trainings that end early: what is said, what is left, and that one folder has one training."""

import os
import signal

import pytest

from sbcore.train.lock import lock

pytestmark = pytest.mark.distributed


def lines_with(text, words):
    return [line for line in text.splitlines() if words in line]


def test_sigterm_names_the_checkpoint_to_go_on_from(tiny_run, forked, workers, tmp_path):
    words = [workers / "ended.py", int(signal.SIGTERM), "all"]
    ended = forked(*words, *tiny_run.words("baseline", tmp_path), check=False)
    assert ended.returncode == 143
    (line,) = lines_with(ended.stderr, "ended by SIGTERM")
    assert line.startswith("train baseline: ended by SIGTERM; last good checkpoint: ")
    assert (lines_with(ended.stderr, "last good checkpoint")[-1]).endswith(
        f"{tmp_path}/checkpoints/step-00000004. the same command with --resume goes on from there."
    )
    assert "Traceback" not in ended.stderr
    done = forked("-m", "sbcore.train", *tiny_run.words("baseline", tmp_path), "--resume")
    assert "resumed at step 4 from" in done.stderr


@pytest.mark.parametrize("rank", [0, 1])
def test_who_survives_a_killed_rank_says_one_line(rank, tiny_run, torchrun, workers, tmp_path):
    words = [workers / "ended.py", int(signal.SIGKILL), rank]
    ended = torchrun(*words, *tiny_run.words("baseline", tmp_path), check=False)
    assert ended.returncode != 0
    said = lines_with(ended.stderr, "last good checkpoint")
    # A signal that comes while a checkpoint is written adds that this is over.
    said = [line for line in said if "what was being written is over" not in line]
    assert len(said) == 1, ended.stderr[-4000:]
    (line,) = said
    assert line.startswith("train baseline: ")
    assert f"last good checkpoint: {tmp_path}/checkpoints/step-0000000" in line
    assert f"[rank{1 - rank}]: Traceback" not in ended.stderr


def test_a_second_training_in_a_folder_is_refused(tiny_run, forked, tmp_path):
    with lock(tmp_path):
        done = forked("-m", "sbcore.train", *tiny_run.words("baseline", tmp_path), check=False)
    assert done.returncode == 2
    (line,) = lines_with(done.stderr, "is at work there")
    assert line.startswith(f"{tmp_path}: process {os.getpid()} of ")
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_full_disk_is_one_line(tiny_run, forked, workers, tmp_path):
    words = tiny_run.words("baseline", tmp_path)
    full = forked(workers / "full_disk.py", *words, check=False)
    assert full.returncode == 2
    (line,) = lines_with(full.stderr, "No space left on device")
    assert line.startswith(f"train baseline: {tmp_path}: No space left on device; last good ")
    assert "Traceback" not in full.stderr


def test_metrics_that_a_host_lost_come_back_with_the_checkpoint(
    tiny_run, forked, workers, tmp_path
):
    words = tiny_run.words("baseline", tmp_path)
    forked(workers / "die.py", 6, *words, check=False)
    (tmp_path / "metrics.jsonl").write_text("")
    forked("-m", "sbcore.train", *words, "--resume")
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 8
