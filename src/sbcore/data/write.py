"""Writes a prepared data set sample by sample, whole or not at all (files: see `layout`)."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sbcore.artifacts import replace_when_done
from sbcore.data.encode import Encoded
from sbcore.data.layout import FORMAT_VERSION, INDEX, TARGETS, TOKENS

_ROWS_AT_ONCE = 4096

_SCHEMA = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("offset", pa.int64()),
        ("num_tokens", pa.int32()),
        ("num_target_tokens", pa.int32()),
        ("source_file", pa.dictionary(pa.int32(), pa.string())),
        ("source_line", pa.int64()),
    ]
)


@dataclass
class _Bytes:
    """A file being written and the digest of what was written."""

    file: BinaryIO
    sha: Any = field(default_factory=hashlib.sha256)

    def append(self, array: NDArray[Any]) -> None:
        data = array.tobytes()
        self.file.write(data)
        self.sha.update(data)


class StoreWriter:
    """Appends samples; `open_store` makes one."""

    def __init__(self, tokens: BinaryIO, targets: BinaryIO, index: pq.ParquetWriter) -> None:
        self.num_samples = self.num_tokens = self.num_target_tokens = 0
        self._tokens, self._targets = _Bytes(tokens), _Bytes(targets)
        self._index = index
        self._rows: list[tuple[int, int, int, int, str, int]] = []

    def append(self, sample: Encoded, *, source_file: str, source_line: int) -> None:
        """Writes one sample behind the others."""
        size, targets = len(sample.tokens), int(sample.is_target.sum())
        row = (self.num_samples, self.num_tokens, size, targets, source_file, source_line)
        self._rows.append(row)
        self._tokens.append(sample.tokens)
        self._targets.append(sample.is_target)
        self.num_samples += 1
        self.num_tokens += size
        self.num_target_tokens += targets
        if len(self._rows) == _ROWS_AT_ONCE:
            self._write_rows()

    def finish(self) -> None:
        """Writes the rest of the index and its metadata."""
        self._write_rows()
        self._index.add_key_value_metadata(
            {
                "format_version": FORMAT_VERSION,
                "num_tokens": str(self.num_tokens),
                "tokens_sha256": self._tokens.sha.hexdigest(),
                "targets_sha256": self._targets.sha.hexdigest(),
            }
        )

    def _write_rows(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)]
            self._index.write_table(pa.table(arrays, schema=_SCHEMA))
            self._rows.clear()


@contextmanager
def open_store(folder: Path) -> Iterator[StoreWriter]:
    """Yields a writer; the files get their names only if the block succeeds, the index last."""
    with ExitStack() as stack:
        index, tokens, targets = (
            stack.enter_context(replace_when_done(folder / name))
            for name in (INDEX, TOKENS, TARGETS)
        )
        with (
            pq.ParquetWriter(index, _SCHEMA) as rows,
            tokens.open("wb") as tokens_file,
            targets.open("wb") as targets_file,
        ):
            writer = StoreWriter(tokens_file, targets_file, rows)
            yield writer
            writer.finish()
