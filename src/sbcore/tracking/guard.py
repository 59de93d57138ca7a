"""Keeps a tracker's failure away from its stage: one warning line, then silence."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sbcore.tracking.seam import Tracker
from sbcore.types import IntArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def warn(sentence: str) -> None:
    """Writes one line to stderr."""
    sys.stderr.write(f"warning: tracking: {sentence}\n")


def one_line(error: BaseException) -> str:
    """Returns the error's kind and first line, short enough for a tag.

    Of a database's error that SQLAlchemy wrapped, the database's own words.
    """
    error = getattr(error.__cause__, "orig", None) or error
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:500]


class Guard:
    """A tracker whose first failure warns and ends tracking, since a dead server stays dead."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._alive = True

    @property
    def run_id(self) -> str | None:
        """The run's id, None when it could not be opened."""
        return self._tracker.run_id

    def start(self, name: str, tags: Mapping[str, str]) -> None:
        """Opens the run, or warns."""
        self._try(lambda: self._tracker.start(name, tags))

    def params(self, values: Mapping[str, object]) -> None:
        """Writes settings, or warns."""
        self._try(lambda: self._tracker.params(values))

    def metrics(self, values: Mapping[str, float | None], *, step: int) -> None:
        """Buffers numbers, or warns."""
        self._try(lambda: self._tracker.metrics(values, step=step))

    def artifact(self, path: Path) -> None:
        """Copies a file, or warns."""
        self._try(lambda: self._tracker.artifact(path))

    def figure(self, figure: "Figure", *, name: str) -> None:
        """Adds a picture, or warns."""
        self._try(lambda: self._tracker.figure(figure, name=name))

    def dataset(
        self, name: str, lengths: IntArray, *, source: Path, digest: str, context: str
    ) -> None:
        """Names the data, or warns."""
        self._try(
            lambda: self._tracker.dataset(
                name, lengths, source=source, digest=digest, context=context
            )
        )

    def end(self, status: str, *, error: str | None) -> None:
        """Closes the run, or warns."""
        self._try(lambda: self._tracker.end(status, error=error))

    def _try(self, call: Callable[[], None]) -> None:
        if not self._alive:
            return
        try:
            call()
        # Whatever a tracking library throws, hours of training are worth more.
        except Exception as failure:
            self._alive = False
            warn(f"stopped: {one_line(failure)}. the stage goes on, its files hold the numbers.")
