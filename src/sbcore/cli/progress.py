"""Progress that can be watched in a terminal and read in a log.

In a pipe (every stage under Snakemake) a bar cannot move, so a line is written every few seconds.
"""

import time
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

_SECONDS_BETWEEN_LINES = 5.0


def make_progress() -> Progress:
    """Returns bars on a terminal's stderr, else lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = Console(stderr=True, soft_wrap=True)
        return LineProgress(console=lines, auto_refresh=False)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


class LineProgress(Progress):
    """Writes a plain line about the task that moved, at most every five seconds."""

    _written_at: float = 0.0

    def start(self) -> None:
        """Starts the clock; there is no live display."""
        self._written_at = time.monotonic()

    def stop(self) -> None:
        """Changes nothing; the stage's closing line is the last word."""

    def refresh(self) -> None:
        """Changes nothing; lines are written when a task moves."""

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Moves the task on."""
        super().advance(task_id, advance)
        self._write(self._tasks[task_id])

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Changes the task."""
        super().update(task_id, **changes)
        self._write(self._tasks[task_id])

    def _write(self, task: Task) -> None:
        now = time.monotonic()
        if now - self._written_at < _SECONDS_BETWEEN_LINES:
            return
        self._written_at = now
        self.console.out(describe(task), highlight=False)


def describe(task: Task) -> str:
    """Returns `latency:  40 %, 24 of 60, 12 s left`."""
    if task.total is None:
        return f"{task.description}: {task.completed:,.0f}"
    left = "" if task.time_remaining is None else f", {task.time_remaining:.0f} s left"
    counts = f"{task.completed:,.0f} of {task.total:,.0f}"
    return f"{task.description}: {task.percentage:3.0f} %, {counts}{left}"
