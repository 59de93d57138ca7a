"""The pipeline's run, its stages and its comparison in a real sqlite store."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from sbcore.config.reporting import TrackingConfig
from sbcore.config.schema import Config
from sbcore.config.stages import RunStage
from sbcore.errors import SparseBalanceError
from sbcore.tracking import close_run, end_run, ending, fail_run, open_run, stage_tracker
from sbcore.tracking.closing import headline_metrics


def run_stage(**tracking):
    config = Config(tracking=TrackingConfig(**tracking))
    return RunStage(run=config.run, tracking=config.tracking, config=config)


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "results" / "demo"


def write_summary(out, speedup):
    row = {"variant": "baseline", "speedup": speedup, "step_time_ms": {"median": 7.0}}
    out.joinpath("report").mkdir(parents=True, exist_ok=True)
    out.joinpath("report", "summary.json").write_text(json.dumps({"variants": [row]}))


def test_off_writes_a_reference_and_every_stage_works(out):
    open_run(run_stage(enabled="off"), out=out)
    reference = json.loads((out / "tracking.json").read_text())
    assert reference["enabled"] is False
    with stage_tracker(out / "tracking.json", stage="train", variant="sab") as tracker:
        tracker.metrics({"loss": 1.0}, step=0)
        assert tracker.run_id is None
    assert close_run(run_stage(enabled="off"), run_dir=out) is None
    assert list(out.parent.iterdir()) == [out]


def test_off_and_the_module_itself_do_not_import_mlflow(out, repository):
    open_run(run_stage(enabled="off"), out=out)
    code = (
        "import sys, pathlib; from sbcore.tracking import stage_tracker\n"
        f"with stage_tracker(pathlib.Path({str(out / 'tracking.json')!r}), stage='a', variant=None)"
        " as t: t.metrics({'a': 1.0}, step=0)\n"
        "sys.exit('mlflow' in sys.modules or 'polars' in sys.modules)"
    )
    path = {**os.environ, "PYTHONPATH": str(repository / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=path, check=False).returncode == 0


@pytest.mark.parametrize(("enabled", "raises"), [("on", True), ("auto", False)])
def test_mlflow_missing(out, monkeypatch, capsys, enabled, raises):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    if raises:
        with pytest.raises(SparseBalanceError, match=r"tracking\.enabled = on: mlflow is not"):
            open_run(run_stage(enabled=enabled), out=out)
    else:
        assert open_run(run_stage(enabled=enabled), out=out).enabled is False
        assert capsys.readouterr().err.count("\n") == 1


def test_a_stage_refuses_a_file_that_is_no_reference(tmp_path):
    file = tmp_path / "tracking.json"
    file.write_text('{"run": 1}')
    with (
        pytest.raises(SparseBalanceError, match="not a tracking reference"),
        stage_tracker(file, stage="train", variant=None),
    ):
        pass


def test_a_dead_server_costs_one_line_and_a_few_seconds(out, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    started = time.monotonic()
    reference = open_run(run_stage(), out=out)
    assert reference.enabled is False
    assert time.monotonic() - started < 30
    warning = capsys.readouterr().err
    assert warning.startswith("warning: tracking: http://127.0.0.1:9: ")
    assert warning.count("\n") == 1


@pytest.mark.parametrize("end", [fail_run, end_run])
def test_a_missing_reference_is_named_with_what_makes_it(out, end):
    said = f"{out}/tracking.json: missing. open the pipeline's run: sb open-run --config {out}/"
    with pytest.raises(SparseBalanceError, match=re.escape(said)):
        end(out / "tracking.json")


def test_a_call_for_some_files_ends_its_run_and_leaves_a_closed_one_as_it_is(out):
    from mlflow import MlflowClient

    config, file = run_stage(), out / "tracking.json"
    reference = open_run(config, out=out)
    client = MlflowClient(reference.uri)

    def run():
        return client.get_run(reference.run_id)

    end_run(file)
    assert run().info.status == "FINISHED"
    assert "No report has closed this run" in run().data.tags["mlflow.note.content"]

    open_run(config, out=out)
    fail_run(file)
    end_run(file)
    assert run().info.status == "FAILED"

    open_run(config, out=out)
    write_summary(out, speedup=1.25)
    close_run(config, run_dir=out)
    closed = run()
    end_run(file)
    assert run().to_dictionary() == closed.to_dictionary()

    open_run(config, out=out)  # for some files again: the report's words stay
    end_run(file)
    assert run().info.status == "FINISHED"
    assert run().data.tags == closed.data.tags


def test_a_run_that_its_report_has_closed_is_not_asked_for_again(out, monkeypatch):
    open_run(run_stage(), out=out)
    asked = []
    monkeypatch.setattr(ending, "open_client", asked.append)
    (out / "closed.json").write_text("{}")
    end_run(out / "tracking.json")
    assert not asked
    earlier = (out / "tracking.json").stat().st_mtime_ns - 1
    os.utime(out / "closed.json", ns=(earlier, earlier))  # of the call before
    end_run(out / "tracking.json")
    assert asked


def test_a_database_that_cannot_be_written_costs_one_line(out, capfd):
    reference = open_run(run_stage(), out=out)
    file = out / "tracking.json"
    database = reference.uri.removeprefix("sqlite:///")
    read_only = f"sqlite:///file:{database}?mode=ro&uri=true"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"uri": read_only}))
    capfd.readouterr()
    fail_run(file)
    warning = capfd.readouterr().err
    assert "OperationalError: attempt to write a readonly database" in warning
    assert warning.startswith("warning: tracking: ")
    assert warning.count("\n") == 1
    with stage_tracker(file, stage="train", variant="sab") as tracker:
        tracker.metrics({"loss": 1.0}, step=0)
    warning = capfd.readouterr().err
    assert warning.startswith("warning: tracking: stopped: OperationalError: attempt to write")
    assert warning.count("\n") == 1


def test_numbers_of_a_summary_row_are_flat_and_missing_ones_left_out():
    row = {"variant": "sab", "speedup": 1.2, "coverage_delta": None, "scores": {"recall": 50.0}}
    assert headline_metrics(row) == {"speedup": 1.2, "scores/recall": 50.0}


def test_the_whole_life_of_a_run_in_sqlite(out, capsys):
    from mlflow import MlflowClient

    config = run_stage()
    reference = open_run(config, out=out)
    file = out / "tracking.json"
    with stage_tracker(file, stage="train", variant="sab") as tracker:
        tracker.params(config.config.train.model_dump())
        for step in range(3):
            tracker.metrics({"loss": 3.0 - step}, step=step)
        tracker.artifact(file)
        tracker.dataset("demo", np.arange(9), source=file, digest="ab" * 32, context="training")
        first = tracker.run_id
    with pytest.raises(OSError, match="disk"), stage_tracker(file, stage="train", variant="sab"):
        raise OSError("disk full\nsecond line")
    client = MlflowClient(reference.uri)
    children = {run.info.run_id: run for run in client.search_runs([reference.experiment_id])}
    done = children[first]
    again = next(run for run in children.values() if run.data.tags.get("supersedes") == first)

    assert done.info.status == "FINISHED"
    assert done.data.metrics == {"loss": 1.0}
    assert [m.value for m in client.get_metric_history(first, "loss")] == [3.0, 2.0, 1.0]
    assert done.data.params["warmup_share"] == "0.1"
    assert done.data.tags["mlflow.parentRunId"] == reference.run_id
    assert (done.data.tags["stage"], done.data.tags["variant"]) == ("train", "sab")
    assert {"commit", "dirty", "version.python"} <= done.data.tags.keys()
    assert done.inputs.dataset_inputs[0].dataset.digest == ("ab" * 32)[:36]
    assert [f.path for f in client.list_artifacts(first)] == ["tracking.json"]
    assert (done.data.tags["attempt"], done.data.tags["current"]) == ("1", "false")
    assert (again.data.tags["attempt"], again.data.tags["current"]) == ("2", "true")
    assert again.info.status == "FAILED"
    assert again.data.tags["error"] == "OSError: disk full"

    write_summary(out, speedup=1.25)
    page = close_run(config, run_dir=out)
    parent = client.get_run(reference.run_id)
    (variant,) = client.search_runs([reference.experiment_id], "tags.kind = 'variant'")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["baseline/speedup"] == 1.25
    assert variant.data.metrics == {"speedup": 1.25, "step_time_ms/median": 7.0}
    settings = variant.data.params
    assert (settings["attention"], settings["balancer"], settings["tuner"]) == (
        "sparse",
        "random",
        "fixed",
    )
    assert (settings["variant"], settings["variant.max_sequences"]) == ("baseline", "1")
    note = parent.data.tags["mlflow.note.content"]
    assert "| baseline | 1.25 | 7 | - | - | - | - |" in note
    assert f"(#/compare-runs?runs=%5B%22{variant.info.run_id}%22" in note
    assert f"`{out}/report/index.html`" in note
    assert page is not None
    assert variant.info.run_id in page

    assert open_run(config, out=out).run_id == reference.run_id
    assert client.get_run(reference.run_id).info.status == "RUNNING"
    changed = config.config.model_copy(update={"seed": 7})
    other = open_run(RunStage(run="demo", tracking=config.tracking, config=changed), out=out)
    assert other.run_id != reference.run_id
    fail_run(file)
    assert client.get_run(other.run_id).info.status == "FAILED"
    assert capsys.readouterr().err == ""
    artifacts = client.get_experiment(reference.experiment_id).artifact_location
    assert artifacts == (out.parent / "mlflow" / "artifacts" / "sparsebalance").as_uri()
