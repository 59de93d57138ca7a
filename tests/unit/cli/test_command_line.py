"""The command line: quick help, one line and exit code 2 on bad input, 130 on Ctrl-C."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sbcore.cli
from sbcore.cli.progress import describe, make_progress
from sbcore.cli.stage import Outcome, Stage, run_stage
from sbcore.config.stages import ProfileLengthsStage
from sbcore.errors import SparseBalanceError

SETTINGS = ProfileLengthsStage.model_validate({"lengths": {}})


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sb", *words])
    with pytest.raises(SystemExit) as caught:
        sbcore.cli.main()
    return int(caught.value.code or 0)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, sbcore.cli\n"
        "heavy = {'torch', 'mlflow', 'polars', 'transformers', 'matplotlib', 'numpy', 'pydantic'}\n"
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bad_input_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(monkeypatch, "config", "check", str(tmp_path / "none.yaml")) == 2
    error = capsys.readouterr().err
    assert error == f"{tmp_path}/none.yaml: no such file. copy config/demo.yaml and edit it.\n"


def test_a_missing_option_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "evaluate", "--out", "x") == 2
    assert capsys.readouterr().err.startswith("--config: missing.")


def test_unwritable_output_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "run.yaml").write_text("seed: 1\n")
    words = ("freeze", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "file" / "x"))
    assert call(monkeypatch, *words) == 2
    assert "Not a directory. check the path" in capsys.readouterr().err


def test_interrupt_exits_with_130(tmp_path: Path) -> None:
    fifo = tmp_path / "config.yaml"
    os.mkfifo(fifo)  # reading it waits for a writer, so the command hangs where it can be stopped
    process = subprocess.Popen(
        [sys.executable, "-m", "sbcore.cli", "config", "check", str(fifo)],
        stderr=subprocess.PIPE,
        text=True,
    )
    writer = os.open(fifo, os.O_WRONLY)  # returns once the command reads
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    os.close(writer)
    assert process.returncode == 130
    assert "Traceback" not in error


def test_a_stage_writes_its_manifest_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage("profile-lengths", None, {}, tmp_path / "manifest.json", None)
    run_stage(stage, SETTINGS, lambda *_: Outcome("all is well", device="cpu", backend="none"))
    assert (tmp_path / "manifest.json").exists()
    assert capsys.readouterr().out.startswith("profile-lengths: all is well (")


def test_a_failed_stage_has_no_manifest(tmp_path: Path) -> None:
    def fail(*_: object) -> Outcome:
        raise SparseBalanceError("a: b. c.")

    with pytest.raises(SparseBalanceError):
        run_stage(Stage("plan", "sab", {}, tmp_path / "manifest.json", None), SETTINGS, fail)
    assert list(tmp_path.iterdir()) == []


def test_progress_without_a_terminal_is_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sbcore.cli.progress._SECONDS_BETWEEN_LINES", 0.0)
    with make_progress() as progress:
        task = progress.add_task("latency", total=40)
        progress.advance(task, 10)
        assert describe(progress.tasks[0]).startswith("latency:  25 %, 10 of 40")
    assert capsys.readouterr().err.startswith("latency:  25 %, 10 of 40")
