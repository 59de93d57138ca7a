"""Steps as they come, a line each: what a start that was killed in the middle of a setting leaves.

The next start in the folder takes them up, so a GPU that runs out of memory in round 17 costs that
round and not the sixteen before it.
"""

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from sbcore.ablation.steps import STEP_COLUMNS, MeasuredStep, parse_step
from sbcore.ablation.table import Place

RAW_COLUMNS = (*(field.name for field in fields(Place)), *STEP_COLUMNS)

Cells = dict[str, str]


class Journal:
    """A csv file that only grows, until its setting stands in the other files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, place: Place, steps: Sequence[MeasuredStep]) -> None:
        """Appends steps at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, fieldnames=RAW_COLUMNS, lineterminator="\n")
            table.writerows(raw_cells(place, step) for step in steps)

    def take(self) -> dict[Place, list[MeasuredStep]]:
        """Returns the whole lines that a killed start left; `clear` when they stand elsewhere."""
        if not self.path.is_file():
            return {}
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        return parse_steps(list(csv.DictReader(lines, fieldnames=RAW_COLUMNS)))

    def clear(self) -> None:
        """Forgets all steps: they stand elsewhere."""
        self.path.unlink(missing_ok=True)


def raw_cells(place: Place, step: MeasuredStep) -> Cells:
    """Returns a line of the raw csv."""
    values = asdict(place) | asdict(step)
    return {name: "" if value is None else str(value) for name, value in values.items()}


def parse_steps(rows: Sequence[Cells]) -> dict[Place, list[MeasuredStep]]:
    """Returns the steps of raw lines by their setting."""
    found: dict[Place, list[MeasuredStep]] = {}
    for cells in rows:
        place = Place(
            device=cells["device"],
            shape=cells["shape"],
            lengths=cells["lengths"],
            barrier=cells["barrier"],
            global_batch=int(cells["global_batch"]),
            run_id=cells["run_id"],
        )
        found.setdefault(place, []).append(parse_step(cells))
    return found
