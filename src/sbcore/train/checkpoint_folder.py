"""Checkpoints as files: which are whole, which belong to this training, which is gone on from.

A checkpoint is a folder ``step-N``, N steps done. Its ``cursor.json`` is written last and lists
every other file with its size, so that a torn one is seen without reading gigabytes.
"""

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sbcore.artifacts import read_json, write_json
from sbcore.errors import SparseBalanceError
from sbcore.train.identity import RunIdentity

FORMAT_VERSION = 2
CURSOR = "cursor.json"


@dataclass(frozen=True)
class Cursor:
    """Where training stands: ``step`` steps of the plan are done, which covers all epochs.

    ``finished``: all of them are, and the model was saved too.
    """

    step: int
    num_ranks: int
    finished: bool


@dataclass(frozen=True)
class Choice:
    """The checkpoint to go on from, None to start anew; ``notes`` are lines to show."""

    path: Path | None
    notes: tuple[str, ...]


def step_folder(folder: Path, step: int) -> Path:
    """Returns where the checkpoint after ``step`` steps lies."""
    return folder / f"step-{step:08d}"


def part_folder(folder: Path, step: int) -> Path:
    """Returns where it lies while it is written."""
    return folder / f".step-{step:08d}.part"


def whole_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints that were finished, oldest first; they may be torn since."""
    return sorted(folder.glob("step-*"))


def check_folder(folder: Path) -> None:
    """Raises SparseBalanceError if checkpoints cannot be listed and written there.

    A folder that may not be read would look empty, and training would begin anew.
    """
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK)):
        raise SparseBalanceError(
            f"{folder}: not a folder that may be read and written. change its permissions, or "
            "choose another --out."
        )


def clear_folder(folder: Path) -> None:
    """Leaves an empty folder; raises SparseBalanceError if that cannot be."""
    check_folder(folder)
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise SparseBalanceError(
            f"{error.filename or folder}: {error.strerror}: older checkpoints cannot be removed, "
            f"or new ones written. look into {folder}, or choose another --out."
        ) from None


def seal(part: Path, cursor: Cursor, identity: RunIdentity) -> None:
    """Writes cursor.json, after which the folder counts as whole once it is renamed."""
    files = {
        str(path.relative_to(part)): path.stat().st_size
        for path in sorted(part.rglob("*"))
        if path.is_file()
    }
    value = {
        "format_version": FORMAT_VERSION,
        "cursor": asdict(cursor),
        "identity": identity.parts,
        "files": files,
    }
    write_json(part / CURSOR, value)


def publish(folder: Path, step: int, *, keep: int) -> Path:
    """Renames the written part to its place and removes all but the newest ``keep``.

    Those of later steps go as well: they are torn, or training would not be here.
    """
    done = step_folder(folder, step)
    for torn in [path for path in whole_checkpoints(folder) if path >= done]:
        shutil.rmtree(torn)
    part_folder(folder, step).rename(done)
    for old in whole_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return done


def mark_finished(folder: Path, num_steps: int, identity: RunIdentity) -> None:
    """Says in the last step's checkpoint, if it could be written, that nothing is left to do.

    With which settings that was comes to stand there, too.
    """
    path = step_folder(folder, num_steps) / CURSOR
    if not path.is_file():
        return
    sealed = read_json(path)
    sealed["cursor"]["finished"] = True
    write_json(path, sealed | {"settings": identity.settings})


def reopen(path: Path) -> None:
    """Says in the checkpoint that the model is still to be written, should it fail again or not."""
    sealed = read_json(path / CURSOR)
    if sealed["cursor"]["finished"]:
        sealed["cursor"]["finished"] = False
        write_json(path / CURSOR, sealed)


def remove_parts(folder: Path) -> None:
    """Removes what a killed run was writing."""
    for part in folder.glob(".step-*.part"):
        shutil.rmtree(part)


def read_cursor(path: Path) -> Cursor:
    """Returns where the checkpoint stands."""
    return Cursor(**_read(path)["cursor"])


def choose(folder: Path, identity: RunIdentity) -> Choice:
    """Returns the newest whole checkpoint of this training.

    A finished training starts anew: going on from its end would train nothing. That is right where
    only its model is to be written in another way. A torn checkpoint is passed over with a note.

    Raises:
        SparseBalanceError: The newest whole checkpoint is of another training, or all are torn.
    """
    notes: list[str] = []
    for path in reversed(whole_checkpoints(folder)):
        try:
            sealed = _read(path)
            saved = RunIdentity(sealed.get("identity", {}), sealed.get("settings", {}))
            if _is_finished(sealed) and not identity.differs_in_writing(saved):
                return Choice(None, tuple(notes))
            _check_whole(path, sealed)
        except SparseBalanceError as error:
            notes.append(str(error))
            continue
        difference = identity.difference(saved)
        if difference is not None:
            raise SparseBalanceError(
                f"{path}: a checkpoint of another training: {difference}. restore the setting, or "
                f"delete {folder} to start anew."
            )
        return Choice(path, tuple(notes))
    if notes:
        raise SparseBalanceError(
            f"{folder}: no checkpoint can be gone on from: {' '.join(notes)} delete the folder to "
            "start anew."
        )
    return Choice(None, ())


def _read(path: Path) -> dict[str, Any]:
    """Returns cursor.json; raises SparseBalanceError if it cannot be read."""
    try:
        sealed = read_json(path / CURSOR)
    except SparseBalanceError:
        sealed = None
    if not _is_sealed(sealed):
        raise SparseBalanceError(f"{path}: torn: {CURSOR} is missing or broken.")
    return sealed


def _is_sealed(value: Any) -> bool:
    """Whether the value is what `seal` writes, as far as it is read here; of any format."""
    if not isinstance(value, dict) or not isinstance(value.get("cursor", {}), dict):
        return False
    parts = (value.get("files"), value.get("identity"), value.get("settings", {}))
    return value.get("format_version") != FORMAT_VERSION or all(isinstance(p, dict) for p in parts)


def _is_finished(sealed: dict[str, Any]) -> bool:
    """Whether training was over; format 1 had it one level higher."""
    return bool(sealed.get("cursor", sealed).get("finished"))


def _check_whole(path: Path, sealed: dict[str, Any]) -> None:
    """Raises SparseBalanceError if a file is missing or cut, or the format is another one."""
    version = sealed.get("format_version")
    if version != FORMAT_VERSION:
        raise SparseBalanceError(f"{path}: format_version = {version}: not {FORMAT_VERSION}.")
    for name, size in sealed["files"].items():
        file = path / name
        if not file.is_file():
            raise SparseBalanceError(f"{path}: torn: {name} is missing.")
        if file.stat().st_size != size:
            raise SparseBalanceError(
                f"{path}: torn: {name} has {file.stat().st_size} bytes, {size} were written."
            )
