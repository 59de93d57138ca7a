"""Reads a prepared data set with numpy and pyarrow alone (files: see `layout`)."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sbcore.artifacts import digest_file
from sbcore.data.layout import FORMAT_VERSION, INDEX, INDEX_COLUMNS, TARGETS, TOKENS
from sbcore.errors import SparseBalanceError
from sbcore.types import IntArray


class TokenStore:
    """The samples of a prepared data set, memory-mapped.

    Raises:
        SparseBalanceError: A file is missing, broken, of another version, or of another data set
            than its neighbours.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / INDEX
        index = self._read_index()
        self._offsets = index["offset"].to_numpy().astype(np.int64)
        self.lengths: IntArray = index["num_tokens"].to_numpy().astype(np.int64)
        self.num_target_tokens: IntArray = index["num_target_tokens"].to_numpy().astype(np.int64)
        self._check_rows()
        self._tokens = self._map(folder / TOKENS, np.dtype(np.uint32))
        self._targets = self._map(folder / TARGETS, np.dtype(bool))

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def digest(self) -> str:
        """The sha256 of the index, which holds those of the tokens and the targets."""
        return digest_file(self._path)

    @property
    def num_tokens(self) -> int:
        """Tokens of all samples."""
        return int(self.lengths.sum())

    def sample(self, sample_id: int) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Returns views of a sample's tokens and of its mask of tokens to be predicted, both [n].

        Raises:
            IndexError: There is no such sample.
        """
        if not 0 <= sample_id < len(self):
            raise IndexError(f"sample_id = {sample_id}: the data set has {len(self)} samples")
        start = self._offsets[sample_id]
        end = start + self.lengths[sample_id]
        return self._tokens[start:end], self._targets[start:end]

    def _read_index(self) -> pa.Table:
        if not self._path.is_file():
            raise SparseBalanceError(f"{self._path}: missing. run the stage prepare.")
        try:
            with pq.ParquetFile(self._path) as file:
                table, metadata = file.read(), file.metadata.metadata or {}
        except (pa.ArrowInvalid, OSError) as error:
            raise self._broken(str(error).splitlines()[0]) from None
        version = metadata.get(b"format_version", b"none").decode()
        if version != FORMAT_VERSION:
            raise self._broken(f"format_version = {version}, not {FORMAT_VERSION}")
        found = {field.name: str(field.type) for field in table.schema}
        if found != INDEX_COLUMNS:
            raise self._broken(f"columns = {found}, not {INDEX_COLUMNS}")
        return table

    def _check_rows(self) -> None:
        ends = self._offsets + self.lengths
        if len(self) == 0 or self.lengths.min() < 1:
            raise self._broken("no samples, or an empty one")
        if self._offsets[0] != 0 or (self._offsets[1:] != ends[:-1]).any():
            raise self._broken("samples do not follow each other")

    def _map(self, path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
        size, wanted = path.stat().st_size if path.is_file() else 0, self.num_tokens
        if size != wanted * dtype.itemsize:
            raise SparseBalanceError(
                f"{path}: {size} bytes, but {self._path.name} tells of {wanted} tokens "
                f"({wanted * dtype.itemsize} bytes). delete the folder and run the stage prepare."
            )
        return np.memmap(path, dtype=dtype, mode="r")

    def _broken(self, problem: str) -> SparseBalanceError:
        return SparseBalanceError(
            f"{self._path}: {problem}. delete the folder and run the stage prepare."
        )
