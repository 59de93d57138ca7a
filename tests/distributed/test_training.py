import fcntl
import json
import shutil
import subprocess
import time

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tiny import planned_anew, tiny_config

from sbcore.train.lock import LOCK

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def unbroken(tiny_run, forked, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    forked("-m", "sbcore.train", *tiny_run.words("sab_dst", out))
    return out


def rows_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_model_and_its_account(unbroken):
    rows = rows_of(unbroken)
    assert [row["step"] for row in rows] == list(range(8))
    summary = json.loads((unbroken / "summary.json").read_text())
    assert summary["num_steps"] == 8
    assert all(np.isfinite(v) for v in summary.values() if isinstance(v, float))
    assert (unbroken / "model/model.safetensors").is_file()
    architecture = json.loads((unbroken / "model/config.json").read_text())["architectures"]
    assert architecture == ["Qwen2ForCausalLM"]
    assert len(list((unbroken / "checkpoints").glob("step-*"))) == 2


def test_the_ledger_holds_every_layer_and_sequence_within_bounds(unbroken):
    ledger = pq.read_table(unbroken / "ledger.parquet").to_pydict()
    assert len(ledger["step"]) == 48 * 2
    coverage, base = np.array(ledger["coverage"]), np.array(ledger["coverage_k0"])
    is_measured, used = np.isfinite(coverage), np.array(ledger["top_k"])
    moved = (used != 4) | (np.array(ledger["top_k_target"]) != 4)
    assert is_measured[moved].all(), "only k0 needs no curve"
    every = tiny_config("step").train.coverage_every_steps
    is_long, surveys = (
        np.array(ledger["num_tokens"]) > 4 * 16,
        np.array(ledger["step"]) % every == 0,
    )
    assert is_measured[is_long & surveys].all(), "averages learn from these steps"
    assert (coverage >= base - 0.3 - 1e-6)[is_measured].all()
    assert (np.array(ledger["top_k"]) >= 1).all()
    assert set(ledger["top_k"]) != {4}


@pytest.fixture(scope="module")
def killed(tiny_run, rank_environment, launcher, workers, tmp_path_factory):
    """A training that was killed between two steps: its folder, and that of its decisions."""
    out, decisions = (tmp_path_factory.mktemp(name) for name in ("killed", "decisions"))
    words = [workers / "hang.py", 6, decisions, *tiny_run.words("sab_dst", out), "--resume"]
    command = launcher("--standalone", "--nproc-per-node=2", *words)
    running = subprocess.Popen(command, env=rank_environment(), stderr=subprocess.DEVNULL)
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) >= 3):
        assert time.monotonic() < deadline, "no third step within two minutes"
        assert running.poll() is None, "ended before it could be killed"
        time.sleep(0.005)
    # Ranks have sessions of their own: killing the launcher's group would leave them running.
    family = [*psutil.Process(running.pid).children(recursive=True), running]
    for process in family:
        process.kill()
    running.wait()
    with (out / LOCK).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ranks are none of ours to wait for: they may die late
    return out, decisions


def whole_rows(path):
    """The kill may have cut the last row off."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def test_every_rank_decides_the_same(killed):
    """Of processes with hash seeds of their own, so started by torchrun."""
    first, second = (whole_rows(killed[1] / f"rank{rank}.jsonl") for rank in range(2))
    both = min(len(first), len(second))
    assert both >= 4, "the fourth step is decided before the third is written down"
    assert first[:both] == second[:both]
    assert any(row["moved"] for row in first[:both]), "equal budgets that never moved show nothing"


def test_killed_between_two_steps_it_goes_on_with_the_same_losses(
    tiny_run, forked, unbroken, killed
):
    out, _ = killed
    assert not (out / "summary.json").exists()
    done = forked("-m", "sbcore.train", *tiny_run.words("sab_dst", out), "--resume")
    assert "resumed at step" in done.stderr
    assert [row["loss"] for row in rows_of(out)] == [row["loss"] for row in rows_of(unbroken)]
    ledgers = [pq.read_table(folder / "ledger.parquet") for folder in (out, unbroken)]
    assert ledgers[0]["top_k"].equals(ledgers[1]["top_k"])


def test_a_finished_training_asked_for_again_starts_anew(tiny_run, forked, unbroken, tmp_path):
    copy = tmp_path / "again"
    shutil.copytree(unbroken, copy)
    (copy / "summary.json").unlink()
    done = forked("-m", "sbcore.train", *tiny_run.words("sab_dst", copy), "--resume")
    assert "resumed" not in done.stderr
    assert "step 1/8" in done.stderr
    assert "not a number" not in done.stderr  # what k0 covers is not measured, which is no news
    assert [row["loss"] for row in rows_of(copy)] == [row["loss"] for row in rows_of(unbroken)]


def test_a_trained_model_that_could_not_be_written_is_not_trained_again(
    tiny_run, forked, unbroken, workers, tmp_path
):
    words = tiny_run.words("sab_dst", tmp_path)
    failed = forked(workers / "unsaved.py", *words, check=False)
    assert failed.returncode != 0
    assert not (tmp_path / "model").exists()
    done = forked("-m", "sbcore.train", *words, "--resume")
    assert "resumed at step 8" in done.stderr
    assert "step 8/8" not in done.stderr
    assert rows_of(tmp_path)[-1]["loss"] == rows_of(unbroken)[-1]["loss"]
    assert json.loads((tmp_path / "summary.json").read_text())["num_steps"] == 8
    models = [(out / "model/model.safetensors").read_bytes() for out in (tmp_path, unbroken)]
    assert models[0] == models[1]
    cursor = json.loads((tmp_path / "checkpoints/step-00000008/cursor.json").read_text())
    assert cursor["cursor"]["finished"], "the next one starts anew"


def test_a_finished_training_writes_its_model_in_another_type_and_trains_nothing(
    tiny_run, forked, unbroken, tmp_path
):
    out, config = tmp_path / "out", tmp_path / "train.json"
    shutil.copytree(unbroken, out)
    stage = json.loads((tiny_run.folder / "config/train.sab_dst.json").read_text())
    stage["model"]["save_dtype"] = "bfloat16"
    config.write_text(json.dumps(stage))
    words = tiny_run.words("sab_dst", out)
    words[words.index("--config") + 1] = str(config)
    shutil.rmtree(out / "model")  # as Snakemake does with outputs
    (out / "summary.json").unlink()
    done = forked("-m", "sbcore.train", *words, "--resume")
    assert "resumed at step 8" in done.stderr
    assert "step 8/8" not in done.stderr
    assert (out / "metrics.jsonl").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()
    for table in ("ledger.parquet", "micro_batches.parquet", "coverage.parquet"):
        ours, older = (pq.read_table(folder / table).to_pydict() for folder in (out, unbroken))
        np.testing.assert_equal(ours, older)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (out, unbroken)]
    assert summaries[0] == summaries[1]
    ours, older = (load_file(folder / "model/model.safetensors") for folder in (out, unbroken))
    assert ours.keys() == older.keys()
    for name, weight in older.items():
        assert torch.equal(ours[name], weight.to(torch.bfloat16)), name
    cursor = json.loads((out / "checkpoints/step-00000008/cursor.json").read_text())
    assert cursor["cursor"]["finished"]
    assert cursor["settings"]["model.save_dtype"] == "bfloat16"


def test_dense_measures_what_all_blocks_cover(tiny_run, forked, tmp_path):
    forked("-m", "sbcore.train", *tiny_run.words("dense", tmp_path))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["backend"] == "sdpa"
    assert summary["coverage_delta"] > 0


def test_the_barrier_in_every_micro_batch_trains_the_same(forked, tiny_run, tmp_path_factory):
    micro = planned_anew(tiny_run, tmp_path_factory.mktemp("micro"), tiny_config("micro"))
    outs = {name: tmp_path_factory.mktemp(name) for name in ("step_out", "micro_out")}
    forked("-m", "sbcore.train", *tiny_run.words("baseline", outs["step_out"]))
    forked("-m", "sbcore.train", *micro.words("baseline", outs["micro_out"]))
    losses = [[row["loss"] for row in rows_of(out)] for out in outs.values()]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert json.loads((outs["micro_out"] / "summary.json").read_text())["barrier"] == "micro"


def test_another_number_of_ranks_is_refused_in_one_line(tiny_run, forked, tmp_path):
    done = forked(
        "-m", "sbcore.train", *tiny_run.words("baseline", tmp_path), num_ranks=1, check=False
    )
    first = done.stderr.splitlines()[0]
    assert first.startswith("topology.num_ranks = 2: torchrun started 1 ranks.")
    assert not list(tmp_path.iterdir())
