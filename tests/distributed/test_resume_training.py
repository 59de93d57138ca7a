"""The trainer itself killed and resumed; the parts of a checkpoint stand in test_resume.py."""

import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny import TinyRun, make_tiny_run, tiny_config

from sbcore.config.stages import plan_stage, train_stage
from sbcore.plan.planner import plan_variant

pytestmark = pytest.mark.distributed

VARIANT = "baseline"


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return make_tiny_run(tmp_path_factory.mktemp("two"), barrier="step")


@pytest.fixture(scope="module")
def one(two, tmp_path_factory):
    """The same run planned for one rank."""
    folder = tmp_path_factory.mktemp("one") / "run"
    shutil.copytree(two.folder, folder)
    config = tiny_config("step")
    topology = config.topology.model_copy(update={"num_ranks": 1})
    config = config.model_copy(update={"topology": topology})
    stage = train_stage(config, VARIANT)
    (folder / f"config/train.{VARIANT}.json").write_text(stage.model_dump_json())
    plan_variant(
        plan_stage(config, VARIANT),
        index=folder / "data/index.parquet",
        latency=folder / "profile",
        out=folder / f"variants/{VARIANT}/plan",
    )
    return TinyRun(folder)


@pytest.fixture(scope="module")
def unbroken(two, torchrun, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    torchrun("-m", "sbcore.train", *two.words(VARIANT, out))
    return out


def losses_of(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(8))
    return [row["loss"] for row in rows]


def samples_of(out):
    ledger = pq.read_table(out / "ledger.parquet").to_pydict()
    pairs = zip(ledger["step"], ledger["sample_id"], strict=True)
    return sorted(set(pairs))


def test_torchrun_restarts_a_killed_rank_and_losses_are_equal_to_the_bit(
    two, unbroken, torchrun, workers, tmp_path, monkeypatch
):
    # As on several nodes; the store that one node shares is tried in test_resume.py.
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    words = ["--max-restarts=1", workers / "die.py", 6, *two.words(VARIANT, tmp_path), "--resume"]
    done = torchrun(*words)
    assert "resumed at step" in done.stderr
    assert losses_of(tmp_path) == losses_of(unbroken)


def test_two_ranks_then_one_then_two_train_on_the_same_samples(
    two, one, unbroken, torchrun, workers, tmp_path
):
    for run, num_ranks, die_at in ((two, 2, 4), (one, 1, 7)):
        words = [workers / "die.py", die_at, *run.words(VARIANT, tmp_path), "--resume"]
        torchrun(*words, num_ranks=num_ranks, check=False)
        assert not (tmp_path / "summary.json").exists()
    done = torchrun("-m", "sbcore.train", *two.words(VARIANT, tmp_path), "--resume")
    assert "written by 1 ranks, now 2" in done.stderr
    assert samples_of(tmp_path) == samples_of(unbroken)
    np.testing.assert_allclose(losses_of(tmp_path), losses_of(unbroken), rtol=1e-4)


def test_a_rehearsal_leaves_nothing_behind_and_names_what_does_not_fit(
    two, torchrun, workers, tmp_path
):
    torchrun(workers / "rehearse.py", tmp_path, *two.words("sab_dst", tmp_path / "out"))
    facts = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    for rank, fact in enumerate(facts):
        assert fact["plain"] == fact["rehearsed"]
        assert re.match(rf"step \d, rank {rank}, micro_batch \d: \d+ tokens in ", fact["line"])
        assert "out of memory (no estimate; CUDA out of memory. Tried to alloc" in fact["line"]
