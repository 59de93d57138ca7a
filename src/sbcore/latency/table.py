"""The file of measured points, ``latency.parquet`` with ``latency.json`` beside it.

Parts: ``attention`` is one layer's attention with its selection, as where the host does not know
the budgets; ``dense`` where it knows that they cover the sequence. ``ends`` is a model without
layers (embedding, head and loss), ``layer`` the same with one layer whose queries see their own
block, ``own_block`` the attention in it, and ``linear`` what follows: the ends and all layers
without attention, by tokens. The others are whole, sharded and run by all ranks as in training:
``micro_batch`` packed sequences, ``fixed`` the same with a budget that the host knows, ``covered``
with one that it knows to cover them, ``floor`` one block of one sequence, ``memory`` a micro-batch
weighed in one setting of recomputation, ``optimizer`` one update (length 0).
Readable with numpy and pyarrow alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sbcore.artifacts import replace_when_done
from sbcore.errors import SparseBalanceError
from sbcore.types import FloatArray

NAME = "latency"
"""Of the profile's files in a run's folder."""

TABLE, HEADER = f"{NAME}.parquet", f"{NAME}.json"

FORMAT_VERSION = "2"

KNOWN = ("fixed", "covered")
"""Parts of whole micro-batches whose budget the host knows; in the others layers may clamp it."""


@dataclass(frozen=True, slots=True)
class GridPoint:
    """A point as in `MeasuredPoint`, not measured yet."""

    part: str
    length: int
    top_k: int
    num_sequences: int
    held_out: bool
    recompute: bool
    lengths: tuple[int, ...] | None = None


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
    recompute: bool = False
    """Whether layers ran their forward again in the backward pass."""
    peak_gib: float | None = None
    """Device memory at its highest, above the model's own; None where it was not measured."""
    lengths: tuple[int, ...] | None = None
    """Of packed sequences that differ, ``length`` being the longest; None: all have that one."""

    @property
    def packed(self) -> tuple[int, ...]:
        """The length of every sequence."""
        return self.lengths or (self.length,) * self.num_sequences

    @staticmethod
    def of(point: GridPoint, times_ms: FloatArray, *, peak_gib: float | None) -> "MeasuredPoint":
        """Returns the point with median, 20th and 80th percentile of its times."""
        p20, median, p80 = np.quantile(times_ms, [0.2, 0.5, 0.8]).tolist()
        return MeasuredPoint(
            part=point.part,
            length=point.length,
            top_k=point.top_k,
            num_sequences=point.num_sequences,
            median_ms=median,
            p20_ms=p20,
            p80_ms=p80,
            n=len(times_ms),
            held_out=point.held_out,
            recompute=point.recompute,
            peak_gib=peak_gib,
            lengths=point.lengths,
        )

    @property
    def grid_point(self) -> GridPoint:
        """The point without its measurement."""
        return GridPoint(
            self.part,
            self.length,
            self.top_k,
            self.num_sequences,
            self.held_out,
            self.recompute,
            self.lengths,
        )


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
        ("recompute", pa.bool_()),
        ("peak_gib", pa.float64()),
        ("lengths", pa.list_(pa.int64())),
    ]
)

_NEWER = ("lengths",)
"""Columns that tables measured before lack."""


def profile_files(profile: Path) -> tuple[Path, Path]:
    """Returns table and header: of a run's folder, or of a table with its json beside it."""
    if profile.suffix == ".parquet":
        return profile, profile.with_suffix(".json")
    return profile / TABLE, profile / HEADER


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
        if field.name not in (*table.schema.names, *_NEWER):
            raise _broken(path, f"column {field.name}: missing")
    columns = [name for name in _SCHEMA.names if name in table.schema.names]
    rows: list[dict[str, Any]] = table.select(columns).to_pylist()
    for number, row in enumerate(rows):
        for key in ("median_ms", "p20_ms", "p80_ms"):
            if row[key] is None or not (np.isfinite(row[key]) and row[key] > 0):
                place = f"{row['part']}, length {row['length']}, top_k {row['top_k']}"
                raise _broken(path, f"row {number} ({place}): {key} = {row[key]}: not a time")
        if row["peak_gib"] is not None and not row["peak_gib"] >= 0:
            raise _broken(path, f"row {number}: peak_gib = {row['peak_gib']}: not a size")
    return [read_point(row) for row in rows]


def read_point(values: Mapping[str, Any]) -> MeasuredPoint:
    """Returns the point of a row, or of what json makes of one."""
    lengths = values.get("lengths")
    return MeasuredPoint(**{**values, "lengths": None if lengths is None else tuple(lengths)})


def _broken(path: Path, what: str) -> SparseBalanceError:
    return SparseBalanceError(
        f"{path}: {what}. delete the file and rerun the stage profile-latency."
    )
