"""The files of a comparison: both csv, written whole after every setting, rows added at the end.

Several starts (another shape, another set of lengths) may share a folder; ``run_id`` tells them
apart.
"""

import csv
import gzip
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from sbcore.ablation.ratios import by_variant
from sbcore.ablation.steps import STEP_COLUMNS, MeasuredStep, parse_step
from sbcore.ablation.table import COLUMNS, Cell, Place, variant_row
from sbcore.artifacts import replace_when_done
from sbcore.errors import SparseBalanceError

TABLE, STEPS = "ablation.csv", "ablation-steps.csv.gz"

RAW_COLUMNS = (*(field.name for field in fields(Place)), *STEP_COLUMNS)


class Results:
    """Both tables; takes up what the folder holds already.

    Raises:
        SparseBalanceError: A file there has other columns, or is broken.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows = read_rows(folder / TABLE, COLUMNS) if (folder / TABLE).is_file() else []
        self._raw = read_rows(folder / STEPS, RAW_COLUMNS) if (folder / STEPS).is_file() else []

    def add(self, place: Place, steps: Sequence[MeasuredStep]) -> None:
        """Appends a setting to both files."""
        for variant, measured in by_variant(steps).items():
            self._rows.append(_as_text(variant_row(place, variant, measured)))
        self._raw += [_as_text(asdict(place) | asdict(step)) for step in steps]
        _write(self._folder / TABLE, COLUMNS, self._rows)
        _write(self._folder / STEPS, RAW_COLUMNS, self._raw)


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Returns the rows of a csv, gzipped or not.

    Raises:
        SparseBalanceError: The file is missing or broken, or its columns are not these.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SparseBalanceError(f"{path}: {error}. measure again into another folder.") from None
    table = csv.DictReader(io.StringIO(text, newline=""))
    found = table.fieldnames or []
    if list(found) != list(columns):
        missing = [name for name in columns if name not in found]
        what = f"no column {', '.join(missing)}" if missing else "columns of another version"
        raise SparseBalanceError(
            f"{path}:1: columns = {', '.join(found)}: {what}. measure again into another folder."
        )
    return list(table)


def read_steps(path: Path) -> dict[Place, list[MeasuredStep]]:
    """Returns the steps of the raw csv by their setting."""
    found: dict[Place, list[MeasuredStep]] = {}
    for cells in read_rows(path, RAW_COLUMNS):
        words = {field.name: cells[field.name] for field in fields(Place)}
        place = Place(**(words | {"global_batch": int(words["global_batch"])}))  # type: ignore[arg-type]
        found.setdefault(place, []).append(parse_step(cells))
    return found


def _as_text(row: dict[str, Cell]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in row.items()}


def _write(path: Path, columns: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
    stream = io.StringIO()
    table = csv.DictWriter(stream, fieldnames=columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    data = stream.getvalue().encode()
    with replace_when_done(path) as part:
        part.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
