"""Files are written whole or not at all, and digests follow content."""

import json
from pathlib import Path

import pytest

from sbcore.artifacts import (
    digest_file,
    git_state,
    read_json,
    replace_when_done,
    write_json,
    write_manifest,
    write_text,
)
from sbcore.errors import SparseBalanceError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError):
        write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path: Path) -> None:
    with replace_when_done(path) as part:
        part.write_text("half")
        raise RuntimeError


def test_a_file_appears_only_when_done(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with replace_when_done(path) as part:
        part.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_that_is_none_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": value})
    assert list(tmp_path.iterdir()) == []


def test_missing_and_broken_json_name_file_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(SparseBalanceError, match=r"a.json: missing. run the stage") as missing:
        read_json(tmp_path / "a.json")
    made_by = f"snakemake {tmp_path}/a.json --cores all --configfile CONFIG"  # any run's, no demo's
    assert str(missing.value).endswith(made_by)
    (tmp_path / "a.json").write_text('{\n"a": }')
    with pytest.raises(SparseBalanceError, match=r"a.json:2: not json: .* delete the file"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"\x8c")
    with pytest.raises(SparseBalanceError, match=r"a.json: not json: no text in UTF-8"):
        read_json(tmp_path / "a.json")
    with pytest.raises(SparseBalanceError, match=r": Is a directory: cannot be read"):
        read_json(tmp_path)


def test_folder_digest_follows_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_text("1")
    first = digest_file(tmp_path / "x")
    (tmp_path / "x" / "a").rename(tmp_path / "x" / "b")
    renamed = digest_file(tmp_path / "x")
    (tmp_path / "x" / "b").write_text("2")
    assert len({first, renamed, digest_file(tmp_path / "x")}) == 3


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() == {"commit": None, "dirty": None}


def test_manifest_says_what_numbers_rest_on(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("data")
    write_manifest(
        tmp_path / "manifest.json",
        stage="plan",
        config="{}",
        inputs={"index": tmp_path / "in"},
        device="cpu",
        backend="sab",
        seconds=1.23456,
        mlflow_run_id=None,
    )
    found = json.loads((tmp_path / "manifest.json").read_text())
    assert found["stage"] == "plan"
    assert found["inputs"] == {"index": digest_file(tmp_path / "in")}
    assert found["seconds"] == 1.235
    assert {"commit", "dirty", "packages", "device", "backend", "mlflow_run_id"} <= set(found)
