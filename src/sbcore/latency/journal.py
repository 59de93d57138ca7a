"""Finished points on disk, so that an interrupted measurement goes on where it stopped."""

import json
from dataclasses import asdict
from pathlib import Path

from sbcore.latency.table import GridPoint, MeasuredPoint, read_point


class Journal:
    """Points measured so far for one configuration on one device, a json line each."""

    def __init__(self, path: Path, *, digest: str) -> None:
        self.path = path
        self._header = json.dumps({"digest": digest})
        self.points = self._read()
        lines = [self._header, *(json.dumps(asdict(point)) for point in self.points)]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def has(self, point: GridPoint) -> bool:
        """Returns whether the point was measured."""
        return any(measured.grid_point == point for measured in self.points)

    def add(self, point: MeasuredPoint) -> None:
        """Writes down a point."""
        self.points.append(point)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(point)) + "\n")

    def close(self) -> None:
        """Removes the file: the table holds its points now."""
        self.path.unlink()

    def _read(self) -> list[MeasuredPoint]:
        """Returns the points of the same configuration; a line cut off by a kill is left out."""
        if not self.path.is_file():
            return []
        header, *lines = self.path.read_text(encoding="utf-8").split("\n")
        if header != self._header:
            return []
        points = []
        for line in lines:
            try:
                points.append(read_point(json.loads(line)))
            except (json.JSONDecodeError, TypeError):
                break
        return points
