"""The seam `Tracker`, and its member for runs that are not tracked."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sbcore.types import IntArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Tracker(Protocol):
    """Where a stage's parameters, numbers and files are shown; one member is one run."""

    @property
    def run_id(self) -> str | None:
        """The run's id, None when nothing is tracked."""
        ...

    def start(self, name: str, tags: Mapping[str, str]) -> None:
        """Opens the run under its name."""
        ...

    def params(self, values: Mapping[str, object]) -> None:
        """Writes settings, once; nested mappings get dotted names."""
        ...

    def metrics(self, values: Mapping[str, float | None], *, step: int) -> None:
        """Buffers numbers of a step; None is left out. Call it outside of what is timed."""
        ...

    def artifact(self, path: Path) -> None:
        """Copies a file to the run."""
        ...

    def figure(self, figure: "Figure", *, name: str) -> None:
        """Adds a picture under this file name."""
        ...

    def dataset(
        self, name: str, lengths: IntArray, *, source: Path, digest: str, context: str
    ) -> None:
        """Names the data that the run read: sequence lengths in tokens [N] and a sha256."""
        ...

    def end(self, status: str, *, error: str | None) -> None:
        """Writes what is buffered and closes the run: FINISHED, FAILED (with why), KILLED."""
        ...


class NoTracker:
    """Tracks nothing; the stages' own files hold every number."""

    @property
    def run_id(self) -> str | None:
        """None: there is no run."""
        return None

    def start(self, name: str, tags: Mapping[str, str]) -> None:
        """Changes nothing."""

    def params(self, values: Mapping[str, object]) -> None:
        """Changes nothing."""

    def metrics(self, values: Mapping[str, float | None], *, step: int) -> None:
        """Changes nothing."""

    def artifact(self, path: Path) -> None:
        """Changes nothing."""

    def figure(self, figure: "Figure", *, name: str) -> None:
        """Changes nothing."""

    def dataset(
        self, name: str, lengths: IntArray, *, source: Path, digest: str, context: str
    ) -> None:
        """Changes nothing."""

    def end(self, status: str, *, error: str | None) -> None:
        """Changes nothing."""
