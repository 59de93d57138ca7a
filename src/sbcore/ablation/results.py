"""The files of a comparison: both csv, written whole after every setting, rows added at the end.

Several starts (another shape, another set of lengths) may share a folder; ``run_id`` tells them
apart.
"""

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

from sbcore.ablation.journal import RAW_COLUMNS, Cells, Journal, parse_steps, raw_cells
from sbcore.ablation.ratios import by_variant
from sbcore.ablation.steps import MeasuredStep
from sbcore.ablation.table import COLUMNS, Place, variant_row
from sbcore.artifacts import replace_when_done
from sbcore.errors import SparseBalanceError

TABLE, STEPS, JOURNAL = "ablation.csv", "ablation-steps.csv.gz", "ablation-unfinished.csv"


class Results:
    """Both tables; takes up what the folder holds already, and what a killed start left in it.

    Raises:
        SparseBalanceError: A file there has other columns, or is broken.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows = read_rows(folder / TABLE, COLUMNS) if (folder / TABLE).is_file() else []
        self._raw = read_rows(folder / STEPS, RAW_COLUMNS) if (folder / STEPS).is_file() else []
        self.journal = Journal(folder / JOURNAL)
        for place, steps in self.journal.take().items():  # of one setting at most
            self.add(place, steps)

    def steps(self) -> dict[Place, list[MeasuredStep]]:
        """Returns all steps by their setting and start."""
        return parse_steps(self._raw)

    def add(self, place: Place, steps: Sequence[MeasuredStep]) -> None:
        """Appends a setting to both files."""
        for variant, measured in by_variant(steps).items():
            row = variant_row(place, variant, measured)
            self._rows.append({name: str(value) for name, value in row.items()})
        self._raw += [raw_cells(place, step) for step in steps]
        write_rows(self._folder / TABLE, COLUMNS, self._rows)
        write_rows(self._folder / STEPS, RAW_COLUMNS, self._raw)
        self.journal.clear()


def read_rows(path: Path, columns: Sequence[str]) -> list[Cells]:
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
    """Returns the steps of the raw csv by their setting; raises as `read_rows`."""
    return parse_steps(read_rows(path, RAW_COLUMNS))


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Cells]) -> None:
    """Writes a csv whole or not at all, gzipped if its name says so."""
    stream = io.StringIO()
    table = csv.DictWriter(stream, fieldnames=columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    data = stream.getvalue().encode()
    with replace_when_done(path) as part:
        part.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
