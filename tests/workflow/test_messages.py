"""What a user sees of a wrong configuration or a failing stage: a line each, no traceback."""

import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_pipeline import Pipeline

from sbcore.plan.file import FORMAT_VERSION, PLAN_SCHEMA

pytestmark = pytest.mark.workflow


def test_every_wrong_value_is_named_at_once(pipeline: Pipeline) -> None:
    bad = pipeline.folder / "bad.yaml"
    bad.write_text(
        "attentoin: {}\n"
        "attention:\n  top_k: 0\n  block_size: -3\n"
        "variants: {baseline: {balancer: {kind: sabb}}}\n"
    )
    done = pipeline.call("-n", "--configfile", "bad.yaml")
    lines = [line for line in done.stderr.splitlines() if line.startswith("bad.yaml:")]
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert [line.split(" ")[0] for line in sorted(lines)] == [
        "bad.yaml:1:",
        "bad.yaml:3:",
        "bad.yaml:4:",
        "bad.yaml:5:",
    ]
    assert "attentoin: unknown key. did you mean 'attention'?" in done.stderr
    assert "attention.top_k = 0: should be greater than 0." in done.stderr
    assert not (pipeline.folder / "results").exists()


def test_a_value_from_the_command_line_says_so(pipeline: Pipeline) -> None:
    done = pipeline.call("-n", "--config", "seed=-1")
    assert done.returncode == 2
    assert "from the command line: seed = -1: should be" in done.stderr


def test_a_missing_file_is_named_with_its_key(pipeline: Pipeline) -> None:
    (pipeline.folder / "mine.yaml").write_text("data: {files: [nowhere.jsonl]}\n")
    done = pipeline.call("-n", "--configfile", "mine.yaml")
    assert done.returncode == 2
    assert "mine.yaml:1: data.files.0 = nowhere.jsonl: no such file." in done.stderr


def test_what_a_stage_would_refuse_after_minutes_is_said_before_any(pipeline: Pipeline) -> None:
    text = "attention: {block_size: 32}\ntopology: {device: cuda}\nlatency: {lengths: [512]}\n"
    (pipeline.folder / "mine.yaml").write_text(f"run: mine\n{text}")
    done = pipeline.call("-n", "--configfile", "mine.yaml")
    assert done.returncode == 2
    assert "mine.yaml:2: attention.block_size = 32: backend auto is triton on " in done.stderr
    assert "mine.yaml:4: latency.lengths = [512]: the latency table needs two " in done.stderr
    assert not (pipeline.folder / "results").exists()


def test_a_failing_stage_shows_its_line_and_leaves_no_output(pipeline: Pipeline) -> None:
    (pipeline.folder / "fail").write_text("prepare")
    done = pipeline.call()
    assert done.returncode == 1
    assert "place: key = value: wrong. mend it." in done.stdout
    log = pipeline.folder / "results" / "demo" / "logs" / "prepare_data.log"
    assert "place: key = value: wrong. mend it." in log.read_text()
    assert not (pipeline.folder / "results" / "demo" / "data" / "summary.json").exists()
    assert "train_variant" not in done.stderr.split("Job stats")[-1].split("rule prepare_data")[-1]


def test_after_ctrl_c_a_stage_s_last_words_are_kept(pipeline: Pipeline) -> None:
    (pipeline.folder / "wait").write_text("make-demo")
    log = pipeline.folder / "results" / "demo" / "logs" / "make_demo.log"
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2"],
        cwd=pipeline.folder,
        env=pipeline.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a terminal sends the signal to the whole group
    )
    deadline = time.monotonic() + 60
    while not (log.exists() and "says so" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    shown, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "make-demo: ended by SIGINT" in log.read_text()
    assert "make-demo: ended by SIGINT" in shown


def test_own_data_without_tokenizer_and_tasks_says_what_to_name(pipeline: Pipeline) -> None:
    (pipeline.folder / "data.jsonl").write_text("{}\n")
    (pipeline.folder / "mine.yaml").write_text("data: {files: [data.jsonl]}\n")
    done = pipeline.call("-n", "--configfile", "mine.yaml")
    assert done.returncode == 2
    assert "mine.yaml:1: data.tokenizer = None: data.files need a tokenizer." in done.stderr
    assert "evaluate.longbench = None: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_task_that_is_not_there_is_named_before_anything_is_trained(pipeline: Pipeline) -> None:
    (pipeline.folder / "mine.yaml").write_text("run: x\nevaluate:\n  tasks: [recalls]\n")
    done = pipeline.call("-n", "--configfile", "mine.yaml")
    assert done.returncode == 2
    assert "mine.yaml:3: evaluate.tasks = 'recalls': unknown. Did you mean 'recall'?" in done.stderr
    (pipeline.folder / "own" / "config").mkdir(parents=True)
    text = "run: x\nevaluate:\n  longbench: own\n  tasks: [qasper]\n"
    (pipeline.folder / "mine.yaml").write_text(text)
    done = pipeline.call("-n", "--configfile", "mine.yaml")
    assert done.returncode == 2
    assert "mine.yaml:4: own: qasper: no qasper.jsonl or qasper.jsonl.gz in it" in done.stderr


def test_results_that_cannot_be_written_are_a_line(pipeline: Pipeline) -> None:
    (pipeline.folder / "results").write_text("a file where the folder should be")
    done = pipeline.call("-n")
    assert done.returncode == 2
    assert "results/demo/config: Not a directory. check the path, its rights" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_of_another_data_set_is_a_line_and_starts_no_rank(finished: Pipeline) -> None:
    (finished.folder / "real-checks").touch()
    plan = finished.folder / "results" / "demo" / "variants" / "sab" / "plan" / "plan.parquet"
    made_for = {"format_version": FORMAT_VERSION, "index_digest": "another"}
    row = dict.fromkeys(PLAN_SCHEMA.names, 0)
    pq.write_table(pa.Table.from_pylist([row], PLAN_SCHEMA.with_metadata(made_for)), plan)
    training = "results/demo/variants/sab/train/summary.json"
    done = finished.call(training, "--forcerun", training)
    assert done.returncode == 1
    assert "plan.parquet: index_digest: the plan of another data set than" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "train says so" not in done.stdout
