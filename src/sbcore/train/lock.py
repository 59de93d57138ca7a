"""One training in a folder at a time: two would mix their metrics and remove each other's parts."""

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import torch.distributed as dist

from sbcore.errors import SparseBalanceError
from sbcore.train.ranks import by_first_rank

LOCK = ".in-use"


@contextmanager
def alone_in(folder: Path, group: dist.ProcessGroup) -> Iterator[None]:
    """Keeps other trainings out of the folder for the block; all ranks call it, rank 0 locks.

    The system lets go of the lock when rank 0 ends, however it ends. The file stays.

    Raises:
        SparseBalanceError: Another process is at work there, or the folder cannot be written, as
            where the disk is full.
    """
    held: list[TextIO] = []
    by_first_rank(lambda: held.append(lock(folder)), group)
    try:
        yield
    finally:
        for file in held:
            leave_in_words(folder)
            file.close()


def leave_in_words(folder: Path) -> None:
    """Notes that the process which locked the folder has said why it ends, if it ends."""
    with suppress(OSError):
        (folder / LOCK).write_text("", encoding="utf-8")


def has_left_in_words(folder: Path) -> bool:
    """Returns whether the process that locked the folder, or who took over, has said why it ends.

    It may still be about to end.
    """
    try:
        return not (folder / LOCK).read_text(encoding="utf-8")
    except OSError:
        return False


def take_over(folder: Path) -> bool:
    """Returns whether the process that locked the folder died without a word.

    Only the first to ask is told so.
    """
    try:
        with (folder / LOCK).open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            died = bool(file.read())
            file.truncate(0)
            return died
    except OSError:  # it lives, or this file system knows no locks
        return False


def lock(folder: Path) -> TextIO:
    """Returns the locked file of the folder, which is made if need be; raises as `alone_in`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise SparseBalanceError(
            f"{folder}: {error.strerror}: not a folder that can be written. choose another --out."
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise SparseBalanceError(
            f"{folder}: {file.read() or 'another process'} is at work there. wait for its end, or "
            "choose another --out."
        ) from None
    except OSError as error:
        sys.stderr.write(
            f"WARNING: {folder}: {error.strerror}: cannot be locked. start nothing else in it.\n"
        )
    try:
        _sign(file)
    except OSError as error:
        file.close()
        raise SparseBalanceError(
            f"{folder / LOCK}: {error.strerror}: cannot be written. make room, or choose another "
            "--out."
        ) from None
    return file


def _sign(file: TextIO) -> None:
    """Writes who holds the file, past its buffer: closing would try again what has failed."""
    file.truncate(0)
    os.write(file.fileno(), f"process {os.getpid()} of {socket.gethostname()}".encode())
    os.fsync(file.fileno())  # on a network's file system other nodes' ranks would read nothing
