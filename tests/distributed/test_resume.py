import json

import numpy as np
import pytest

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def words(workers):
    """Returns a function that makes a folder and returns the words of a toy training in it."""

    def make(out, **facts):
        out.mkdir(exist_ok=True)
        return [workers / "resume.py", out, json.dumps(facts)]

    return make


@pytest.fixture(scope="module")
def train(forked, words):
    """Returns a function that runs the toy training, and the process."""

    def run(out, *, num_ranks=2, check=True, **facts):
        return forked(*words(out, **facts), num_ranks=num_ranks, check=check)

    return run


def rows_of(out):
    """The last row of every step: a restarted training does some steps twice."""
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    last = {row["step"]: row for row in rows}
    return [last[step] for step in sorted(last)], rows


def column(out, name):
    return [row[name] for row in rows_of(out)[0]]


def checkpoint_names(out):
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def test_a_killed_rank_is_restarted_and_losses_are_equal_to_the_bit(
    train, torchrun, words, tmp_path
):
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    train(unbroken, dropout=0.3)
    torchrun("--max-restarts=1", *words(killed, dropout=0.3, die_at=7))
    assert column(killed, "loss") == column(unbroken, "loss")
    assert column(killed, "average") == column(unbroken, "average")
    last, rows = rows_of(killed)
    assert len(rows) > len(last) == 8, "the kill came after the last step"
    # Of the sixth step there is one if it was written before the kill.
    assert rows[7]["step"] in (4, 6), "the second attempt did not begin at a checkpoint"
    assert checkpoint_names(killed) == ["step-00000006", "step-00000008"]


def test_two_ranks_then_one_then_two_see_the_same_samples_and_losses(train, tmp_path):
    unbroken, changed = tmp_path / "unbroken", tmp_path / "changed"
    train(unbroken)
    for num_ranks, num_steps in ((2, 3), (1, 6), (2, 8)):
        done = train(changed, num_ranks=num_ranks, num_steps=num_steps)
    assert "was written by 1 ranks, now 2: random states are drawn anew" in done.stderr
    assert column(changed, "ranks") == [2, 2, 2, 1, 1, 1, 2, 2]
    assert column(changed, "samples") == column(unbroken, "samples")
    np.testing.assert_allclose(column(changed, "loss"), column(unbroken, "loss"), rtol=1e-5)


def test_one_ranks_nan_makes_all_ranks_skip_and_two_in_a_row_stop_training(train, tmp_path):
    done = train(tmp_path, nan_at=[0, 2, 5, 6], limit=2, check=False)
    assert done.returncode != 0
    assert column(tmp_path, "skipped") == [True, False, True, False, False, True]
    # Before the first step there are no moments yet: making them is a change.
    assert column(tmp_path, "unchanged")[1:] == [False, True, False, False, True]
    assert np.isfinite([row["loss"] for row in rows_of(tmp_path)[0] if not row["skipped"]]).all()
    assert "not finite, step skipped (1 in a row, 2 in all)" in done.stderr
    assert "step 6: gradient norm = nan" in done.stderr
    assert "not finite, step 2 in a row" in done.stderr
    assert f"last good checkpoint: {tmp_path}/checkpoints/step-0000000" in done.stderr


def test_a_failed_write_is_named_and_training_goes_on(train, tmp_path):
    done = train(tmp_path, break_write=4)
    assert "step-00000004: not written: rank 1: OSError: [Errno 28] No space left" in done.stderr
    assert "last good: " in done.stderr
    assert checkpoint_names(tmp_path) == ["step-00000006", "step-00000008"]
    assert len(column(tmp_path, "loss")) == 8


@pytest.mark.gpu
def test_on_a_gpu_a_resumed_training_has_the_same_losses_to_the_bit(torchrun, words, tmp_path):
    unbroken, resumed = tmp_path / "unbroken", tmp_path / "resumed"
    facts = {"device": "cuda", "dropout": 0.3}
    for out, num_steps in ((unbroken, 8), (resumed, 4), (resumed, 8)):
        torchrun(*words(out, num_steps=num_steps, **facts), num_ranks=1)
    assert column(resumed, "loss") == column(unbroken, "loss")
