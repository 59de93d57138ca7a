"""The command line: quick help, one line and exit code 2 on bad input, 130 on Ctrl-C."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import sbcore
import sbcore.cli
from sbcore.artifacts import git_state
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


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


COMMANDS = dict(commands(get_command(sbcore.cli.app)))
NEEDS = {
    words: [one.opts[0] for one in command.params if one.required]
    for words, command in COMMANDS.items()
}


def test_all_commands_are_known_here() -> None:
    assert len(COMMANDS) > 15
    assert {("simulate",), ("plan",), ("config", "check")} <= COMMANDS.keys()


@pytest.mark.parametrize("words", [words for words, names in NEEDS.items() if names])
def test_all_that_is_missing_is_one_line(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *words) == 2
    called = " ".join(["sb", *words])
    expected = f"{called}: missing {', '.join(NEEDS[words])}. what it takes: {called} --help\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("words", COMMANDS)
def test_an_unknown_option_is_one_line(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *words, "--zzz") == 2
    called = " ".join(["sb", *words])
    error = capsys.readouterr().err
    assert error == f"{called}: no such option: --zzz. what it takes: {called} --help\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bogus"], "sb: no such command 'bogus'. what it takes: sb --help"),
        (["simulat"], "sb: no such command 'simulat'. Did you mean 'simulate'? what it takes:"),
        (["config", "bogus"], "sb config: no such command 'bogus'."),
        (["config", "check", "a", "b"], "sb config check: got unexpected extra argument(s) (b)."),
        (["plan", "--out"], "sb plan: option '--out' requires an argument."),
        (["simulate", "--global-batch", "two"], "sb simulate: invalid value for '--global-batch':"),
        (["simulate", "--steps", "0"], "sb simulate: invalid value for '--steps':"),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith(said)
    assert error.endswith(" --help\n")
    assert error.count("\n") == 1


def test_the_version_is_told_with_its_commit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--version") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"sparsebalance {sbcore.__version__}, ")
    assert (git_state()["commit"] or "no git checkout") in said


def test_no_words_show_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch) == 2
    shown = capsys.readouterr()
    assert "Load-balanced long-context training" in shown.out + shown.err
    assert "simulate" in shown.out + shown.err


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
