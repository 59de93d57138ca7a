"""What a benchmark has besides its tasks' scores: a row here, a file in the result's folder."""

from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol, cast

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.task_folder import LoadedTask


class Summary(Protocol):
    """Writes a benchmark's own tables and pictures to ``out``, returns the table."""

    def __call__(
        self, tasks: Sequence[LoadedTask], *, prediction_dir: Path, out: Path
    ) -> dict[str, Any]:
        """Returns what was written."""
        ...


SUMMARIES = {
    "niah": "sbcore.evaluate.niah.heat_map:score_niah",
    "ruler": "sbcore.evaluate.ruler.averages:score_ruler",
    "longbench_v2": "sbcore.evaluate.longbench_v2:score_longbench_v2",
}
"""By the category of tasks."""
_SIZED = ("niah", "ruler")  # categories whose rows say their size and hide what is asked for


def summarize_families(tasks: Sequence[LoadedTask], *, out: Path) -> None:
    """Writes the tables of all benchmarks that the evaluated tasks belong to."""
    for category, place in SUMMARIES.items():
        if members := [loaded for loaded in tasks if loaded.task.category == category]:
            cast(Summary, resolve_name(place))(members, prediction_dir=out, out=out)


def refuse_short_limit(tasks: Sequence[LoadedTask], *, max_prompt_tokens: int) -> None:
    """Refuses tasks of a size that the limit would cut what is asked for out of.

    Raises:
        SparseBalanceError: A task of a made length is longer than the limit.
    """
    for loaded in (each for each in tasks if each.task.category in _SIZED):
        needed = max(int(getattr(row, "max_seq_length", 0)) for row in loaded.rows)
        if needed > max_prompt_tokens:
            raise SparseBalanceError(
                f"evaluate.max_prompt_tokens = {max_prompt_tokens}: {loaded.task.name} has prompts "
                f"of {needed} tokens, whose middle would go. raise it to {needed} or leave the "
                "task out."
            )
