"""The trainer itself killed and resumed; the parts of a checkpoint stand in test_resume.py."""

import json
import re
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny import planned_anew, tiny_config

pytestmark = pytest.mark.distributed

VARIANT = "baseline"


@pytest.fixture(scope="module")
def one(tiny_run, tmp_path_factory):
    """The same run planned for one rank."""
    config = tiny_config("step")
    topology = config.topology.model_copy(update={"num_ranks": 1})
    config = config.model_copy(update={"topology": topology})
    return planned_anew(tiny_run, tmp_path_factory.mktemp("one"), config)


@pytest.fixture(scope="module")
def unbroken(tiny_run, forked, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    forked("-m", "sbcore.train", *tiny_run.words(VARIANT, out))
    return out


def losses_of(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(8))
    return [row["loss"] for row in rows]


def samples_of(out):
    ledger = pq.read_table(out / "ledger.parquet").to_pydict()
    pairs = zip(ledger["step"], ledger["sample_id"], strict=True)
    return sorted(set(pairs))


def test_a_killed_rank_of_two_nodes_is_restarted_and_losses_are_equal_to_the_bit(
    tiny_run, unbroken, two_nodes, workers, tmp_path, monkeypatch
):
    # Asked for where there are several nodes; the store that one node shares: test_resume.py.
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    # Without --resume, which throws older trainings away: what a restart finds is its own.
    words = [workers / "die.py", 6, *tiny_run.words(VARIANT, tmp_path)]
    assert "resumed at step" in two_nodes("--max-restarts=1", *words)
    assert losses_of(tmp_path) == losses_of(unbroken)


def test_two_ranks_then_one_then_two_train_on_the_same_samples(
    tiny_run, one, unbroken, forked, workers, tmp_path
):
    for run, num_ranks, die_at in ((tiny_run, 2, 4), (one, 1, 7)):
        words = [workers / "die.py", die_at, *run.words(VARIANT, tmp_path), "--resume"]
        forked(*words, num_ranks=num_ranks, check=False)
        assert not (tmp_path / "summary.json").exists()
    done = forked("-m", "sbcore.train", *tiny_run.words(VARIANT, tmp_path), "--resume")
    assert "written by 1 ranks, now 2" in done.stderr
    assert samples_of(tmp_path) == samples_of(unbroken)
    np.testing.assert_allclose(losses_of(tmp_path), losses_of(unbroken), rtol=1e-4)


def test_a_rehearsal_leaves_nothing_behind_and_names_what_does_not_fit(
    tiny_run, forked, workers, tmp_path
):
    forked(workers / "rehearse.py", tmp_path, *tiny_run.words("sab_dst", tmp_path / "out"))
    facts = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    for rank, fact in enumerate(facts):
        assert fact["plain"] == fact["rehearsed"]
        assert fact["lengths"]["kept"], "the generator's state"
        alone = [lengths[0] for lengths in fact["lengths"]["ran"] if len(lengths) == 1]
        sizes = {(length - 1).bit_length() for length in fact["lengths"]["planned"]}
        assert {(length - 1).bit_length() for length in alone} == sizes
        assert fact["products"]["num"] > 15  # three of each weight of a layer, and of the head
        assert fact["products"]["counts"] == fact["products"]["planned"]
        assert re.match(rf"step \d, rank {rank}, micro_batch \d: \d+ tokens in ", fact["line"])
        assert "out of memory (no estimate; CUDA out of memory. Tried to alloc" in fact["line"]
        assert re.match(rf"step \d, rank {rank}, rehearsal: \d+ tokens in ", fact["later_line"])


@pytest.fixture(scope="module")
def checked(rank_environment):
    """Returns a function that checks the words of a training as the pipeline does before it."""

    def run(*words):
        command = [sys.executable, "-m", "sbcore.train.inputs", *words]
        done = subprocess.run(
            command, env=rank_environment(), capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr

    return run


def test_a_checkpoint_of_another_training_is_one_line_before_any_rank_starts(
    tiny_run, forked, checked, workers, tmp_path
):
    words, other = tiny_run.words(VARIANT, tmp_path / "out"), tmp_path / "other.json"
    forked(workers / "die.py", 6, *words, "--resume", check=False)
    assert list((tmp_path / "out/checkpoints").glob("step-*"))
    assert checked(*words, "--resume") == (0, "")
    stage = json.loads((tiny_run.folder / f"config/train.{VARIANT}.json").read_text())
    stage["train"] |= {"learning_rate": 1.0}
    other.write_text(json.dumps(stage))
    words[words.index("--config") + 1] = str(other)
    assert checked(*words) == (0, "")  # older checkpoints are thrown away
    status, said = checked(*words, "--resume")
    assert status == 2
    (line,) = said.splitlines()
    assert "a checkpoint of another training: method: train.learning_rate = 0.002 there" in line
