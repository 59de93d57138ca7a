"""The file of measured points, ``latency.parquet`` with ``latency.json`` beside it.

Parts: ``attention`` is one layer's attention with its selection; ``linear`` all the
rest of the model by packed tokens (top_k 0); ``floor`` the whole model, sharded, on one block of
one sequence; ``optimizer`` one update (length 0); ``micro_batch`` the whole model on num_sequences
packed sequences, always held out. Readable with numpy and pyarrow alone.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sbcore.artifacts import replace_when_done
from sbcore.errors import SparseBalanceError

TABLE, HEADER, CHART = "latency.parquet", "latency.json", "latency.png"

FORMAT_VERSION = "1"


@dataclass(frozen=True, slots=True)
class MeasuredPoint:
    """One point of the grid; times are of forward and backward together."""

    part: str
    length: int
    top_k: int
    num_sequences: int
    median_ms: float
    p20_ms: float
    p80_ms: float
    n: int
    held_out: bool


_SCHEMA = pa.schema(
    [
        ("part", pa.string()),
        ("length", pa.int64()),
        ("top_k", pa.int64()),
        ("num_sequences", pa.int64()),
        ("median_ms", pa.float64()),
        ("p20_ms", pa.float64()),
        ("p80_ms", pa.float64()),
        ("n", pa.int64()),
        ("held_out", pa.bool_()),
    ]
)


def write_points(path: Path, points: list[MeasuredPoint]) -> None:
    """Writes the points, whole or not at all."""
    names = [field.name for field in fields(MeasuredPoint)]
    columns = {name: [getattr(point, name) for point in points] for name in names}
    schema = _SCHEMA.with_metadata({"format_version": FORMAT_VERSION})
    with replace_when_done(path) as part:
        pq.write_table(pa.table(columns, schema=schema), part)


def read_points(path: Path) -> list[MeasuredPoint]:
    """Returns the points of the file.

    Raises:
        SparseBalanceError: The file is missing, broken, of another version, lacks a column, or
            holds a time that is not a positive number.
    """
    if not path.is_file():
        raise SparseBalanceError(f"{path}: missing. run the stage profile-latency.")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(path, f"not parquet ({str(error).splitlines()[0]})") from None
    version = (table.schema.metadata or {}).get(b"format_version", b"none").decode()
    if version != FORMAT_VERSION:
        raise _broken(path, f"format_version = {version}: not {FORMAT_VERSION}")
    for field in _SCHEMA:
        if field.name not in table.schema.names:
            raise _broken(path, f"column {field.name}: missing")
    rows: list[dict[str, Any]] = table.select(_SCHEMA.names).to_pylist()
    for number, row in enumerate(rows):
        for key in ("median_ms", "p20_ms", "p80_ms"):
            if row[key] is None or not (np.isfinite(row[key]) and row[key] > 0):
                place = f"{row['part']}, length {row['length']}, top_k {row['top_k']}"
                raise _broken(path, f"row {number} ({place}): {key} = {row[key]}: not a time")
    return [MeasuredPoint(**row) for row in rows]


def _broken(path: Path, what: str) -> SparseBalanceError:
    return SparseBalanceError(
        f"{path}: {what}. delete the file and rerun the stage profile-latency."
    )
