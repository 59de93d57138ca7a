"""How a training says that it ends early: why, and from which checkpoint it can go on."""

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from sbcore.train.complaint import RANK0_SPEAKS_SECONDS, AlreadySaid
from sbcore.train.lock import has_left_in_words, leave_in_words, take_over
from sbcore.train.run import TrainingRun
from sbcore.train.signals import answering_signals

_ASKED_EVERY_SECONDS = 0.02


@contextmanager
def last_words(run: TrainingRun) -> Iterator[None]:
    """Turns SIGTERM, SIGINT, a lost rank and a file that cannot be written into one line.

    Raises:
        AlreadySaid: After the line; it is written at once, since torchrun ends a rank within a
            tenth of a second of another's end.
    """
    ending = _Ending(run)
    with answering_signals(ending.by_signal):
        try:
            yield
        except (OSError, RuntimeError) as error:
            reason = in_words(error, run.files.folder)
            if reason is None:
                raise
            raise ending.by_error(reason) from None


class _Ending:
    """Says once what is said, whichever thread comes first."""

    def __init__(self, run: TrainingRun) -> None:
        self._run, self._turn, self._said = run, threading.Lock(), False

    def by_signal(self, name: str) -> None:
        """Names the checkpoint at once, and again if one was still being written."""
        run = self._run
        writing = run.checkpoints.being_written()  # asked first: it may end before the line is out
        speaks = self._say(f"ended by {name}")
        if writing is not None:
            wait([writing])
            if speaks:
                self._write("what was being written is over")
        run.tracker.end("KILLED", error=name)

    def by_error(self, reason: str) -> AlreadySaid:
        """Returns the error to raise once its line is written.

        A rank that was killed closes its connections before it lets go of its lock, and torchrun's
        signal may come in between: so this rank asks again, and leaves its signals their say. Rank
        0 may have spoken and still hold its lock: ending takes it a while.
        """
        line, started = self._line(reason), time.monotonic()
        while not (self._say(reason) or self._said or has_left_in_words(self._run.files.folder)):
            if time.monotonic() - started > RANK0_SPEAKS_SECONDS:
                sys.stderr.write(f"rank {self._run.files.rank}: {line}\n")
                break
            time.sleep(_ASKED_EVERY_SECONDS)
        return AlreadySaid(line)

    def _say(self, reason: str) -> bool:
        """Writes the line if nothing was said yet and it is for this rank to speak."""
        with self._turn:
            if self._said or not self._is_speaker():
                return False
            self._write(reason)
            self._said = True
            return True

    def _is_speaker(self) -> bool:
        """Whether this is rank 0, or rank 0 was killed and this rank the first to notice."""
        return self._run.files.rank == 0 or take_over(self._run.files.folder)

    def _write(self, reason: str) -> None:
        sys.stderr.write(f"{self._line(reason)}\n")
        sys.stderr.flush()
        leave_in_words(self._run.files.folder)

    def _line(self, reason: str) -> str:
        trainer, checkpoints = self._run.trainer, self._run.checkpoints
        good = checkpoints.last_good(trainer.inputs.plan.num_steps)
        advice = "" if good == "none" else " the same command with --resume goes on from there."
        return f"train {trainer.stage.variant}: {reason}; last good checkpoint: {good}.{advice}"


def in_words(error: OSError | RuntimeError, folder: Path) -> str | None:
    """Returns what happened in words; None for what is no matter of files or of other ranks.

    ``folder`` is named where the system did not say which file.
    """
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, OSError):
        what = os.strerror(error.errno) if error.errno else first
        return f"{error.filename or folder}: {what}"
    if isinstance(error, dist.DistError) or "gloo/transport" in first:
        what = re.sub(r"^\[\S+\] ", "", first).partition(". ")[0]
        return f"another rank is gone, torchrun says which: {what}"
    return None
