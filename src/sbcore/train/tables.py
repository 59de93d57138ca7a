"""The files of a training that grow with its steps: two tables and metrics.jsonl."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sbcore.artifacts import replace_when_done


class Table:
    """Rows that grow step by step and are written whole."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []

    def add(self, columns: dict[str, Any]) -> None:
        """Appends rows given by column."""
        self._parts.append(pa.table(columns))

    def write(self, path: Path) -> None:
        """Writes all rows so far."""
        with replace_when_done(path) as part:
            pq.write_table(pa.concat_tables(self._parts), part)

    def snapshot(self) -> "Table":
        """Returns the rows so far; what is added later is not in it."""
        copy = Table()
        copy._parts = list(self._parts)
        return copy

    def load(self, path: Path) -> None:
        """Takes over the rows of an interrupted run."""
        self._parts = [pq.read_table(path)]


class MetricsFile:
    """metrics.jsonl: one object per step, written at once, so that a killed run leaves them."""

    def __init__(self, path: Path, *, first_step: int) -> None:
        self.path = path
        kept = [row for row in self.rows() if row["step"] < first_step] if path.is_file() else []
        with replace_when_done(path) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def add(self, row: dict[str, Any]) -> None:
        """Appends one step."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, allow_nan=False) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """Returns all whole lines; a line cut off by a kill is left out."""
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line]
