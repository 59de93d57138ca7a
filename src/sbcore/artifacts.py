"""Files between stages: written whole or not at all, and each with a manifest beside it."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from sbcore.errors import SparseBalanceError

FORMAT_VERSION = 1
"""Raised when a file's columns change; readers refuse another one."""

_PACKAGES = ("torch", "triton", "transformers", "numpy", "polars", "pyarrow", "mlflow", "snakemake")


@contextmanager
def replace_when_done(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside path; renames it to path only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder_when_done(folder: Path, *, part: Path) -> Iterator[Path]:
    """Yields the empty folder ``part``, which takes this one's place only if the block succeeds.

    What a killed process left there is removed first.
    """
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes the text whole or not at all."""
    with replace_when_done(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Writes the value as indented json, whole or not at all; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Returns the file's value; raises SparseBalanceError naming a missing or broken file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SparseBalanceError(
            f"{path}: missing. run the stage that writes it, with the run's own CONFIG: "
            f"snakemake {path} --cores all --configfile CONFIG"
        ) from None
    except OSError as error:
        raise SparseBalanceError(
            f"{path}: {error.strerror}: cannot be read. let this user read it."
        ) from None
    except json.JSONDecodeError as error:
        raise SparseBalanceError(
            f"{path}:{error.lineno}: not json: {error.msg}. delete the file and rerun its stage."
        ) from None
    except UnicodeDecodeError:
        raise SparseBalanceError(
            f"{path}: not json: no text in UTF-8. delete the file and rerun its stage."
        ) from None


def digest_file(path: Path) -> str:
    """Returns the sha256 of a file's bytes; of a folder, of its files' names and bytes."""
    sha = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file != path:
            sha.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                sha.update(chunk)
    return sha.hexdigest()


def digest_text(text: str) -> str:
    """Returns the sha256 of the text."""
    return hashlib.sha256(text.encode()).hexdigest()


def package_versions() -> dict[str, str]:
    """Returns the versions of the packages that results depend on, those installed."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_state() -> dict[str, str | bool | None]:
    """Returns the commit of the checkout that holds this package and whether it has edits.

    Both are None without git or a checkout.
    """
    folder = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else status != ""}


def write_manifest(
    path: Path,
    *,
    stage: str,
    config: str,
    inputs: Mapping[str, Path],
    device: str,
    backend: str,
    seconds: float,
    mlflow_run_id: str | None,
) -> dict[str, Any]:
    """Writes what a stage's numbers rest on (``manifest.json`` beside its files), returns it."""
    manifest = {
        "format_version": FORMAT_VERSION,
        "stage": stage,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "config_digest": digest_text(config),
        "inputs": {name: digest_file(path) for name, path in inputs.items()},
        **git_state(),
        "packages": package_versions(),
        "device": device,
        "backend": backend,
        "seconds": round(seconds, 3),
        "mlflow_run_id": mlflow_run_id,
    }
    write_json(path, manifest)
    return manifest
