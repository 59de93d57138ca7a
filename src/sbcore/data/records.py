"""Records of jsonl and parquet files, one at a time, each with the place it came from."""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbcore.errors import SparseBalanceError

OnBad = Callable[["BadRecord"], None]
"""Raises the error, or counts it and returns, so that the record is left out."""
Advance = Callable[[int], None]
"""Takes the bytes of a file that have been read since the last call."""

_PARQUET_ROWS = 64  # rows decoded at once: long documents make rows of megabytes


@dataclass(frozen=True, slots=True)
class Record:
    """One record; ``line`` counts from 1 (in parquet: rows)."""

    path: Path
    line: int
    fields: Mapping[str, Any]

    @property
    def place(self) -> str:
        """``file:line``."""
        return f"{self.path}:{self.line}"


class BadRecord(SparseBalanceError):
    """A record that cannot be used; ``reason`` is the word that skipped ones are counted under."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_records(path: Path, *, on_bad: OnBad, advance: Advance) -> Iterator[Record]:
    """Yields the records of a .jsonl, .jsonl.gz or .parquet file without holding the file.

    Raises:
        SparseBalanceError: There is no such file, it is of another kind, or it cannot be read.
    """
    if not path.is_file():
        raise SparseBalanceError(f"{path}: no such file. correct data.files.")
    for ending, reader in _READERS.items():
        if path.name.endswith(ending):
            return reader(path, on_bad, advance)
    raise SparseBalanceError(
        f"{path}: '{path.suffix}' is not a known ending. give {', '.join(_READERS)}"
        + ("; jq -c '.[]' turns a json array into jsonl." if path.suffix == ".json" else ".")
    )


def _read_jsonl(path: Path, on_bad: OnBad, advance: Advance) -> Iterator[Record]:
    for number, line in enumerate(_lines(path, advance), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:  # not JSON, or not UTF-8
            problem = str(error)
            if isinstance(error, json.JSONDecodeError):  # its own line is one of this line
                problem = f"{error.msg} (column {error.pos + 1})"
            on_bad(
                BadRecord(
                    "not_json",
                    f"{path}:{number}: {_shorten(line)}: not json: {problem}. "
                    "correct the line, or set data.on_bad_line to skip.",
                )
            )
            continue
        if isinstance(fields, dict):
            yield Record(path, number, fields)
        else:
            on_bad(
                BadRecord(
                    "not_an_object",
                    f"{path}:{number}: {_shorten(line)}: not an object. "
                    "write one JSON object per line, or set data.on_bad_line to skip.",
                )
            )


def _lines(path: Path, advance: Advance) -> Iterator[bytes]:
    position = 0
    with path.open("rb") as raw:
        stream = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        try:
            for line in stream:
                yield line
                advance(raw.tell() - position)
                position = raw.tell()
        except (EOFError, OSError) as error:
            raise SparseBalanceError(f"{path}: cannot be read: {error}. copy it again.") from None


def _read_parquet(path: Path, on_bad: OnBad, advance: Advance) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        bytes_per_row = path.stat().st_size / max(1, file.metadata.num_rows)
        line = 0
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
            for fields in batch.to_pylist():
                line += 1
                yield Record(path, line, fields)
            advance(round(bytes_per_row * batch.num_rows))
    except (pa.ArrowInvalid, OSError) as error:
        problem = str(error).splitlines()[0]
        raise SparseBalanceError(f"{path}: cannot be read: {problem}. copy it again.") from None


def _shorten(line: bytes) -> str:
    text = line.decode("utf-8", errors="replace").strip()
    return text if len(text) <= 40 else f"{text[:37]}..."


_READERS = {".jsonl": _read_jsonl, ".jsonl.gz": _read_jsonl, ".parquet": _read_parquet}
