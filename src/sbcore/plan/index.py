"""The samples to plan for, read from the index of a prepared data set with pyarrow alone."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sbcore.errors import SparseBalanceError
from sbcore.types import IntArray


@dataclass(frozen=True, slots=True)
class Samples:
    """All samples of a data set."""

    sample_ids: IntArray  # [num_samples]
    lengths: IntArray  # [num_samples] tokens


def read_samples(index: Path) -> Samples:
    """Returns the samples of an index.

    Raises:
        SparseBalanceError: The index is missing, broken or empty, a cell holds no whole number, an
            id is there twice, or a sample has no tokens.
    """
    if not index.is_file():
        raise SparseBalanceError(f"{index}: missing. run the stage prepare.")
    try:
        table = pq.read_table(index, columns=["sample_id", "num_tokens"])
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SparseBalanceError(f"{index}: {reason}. rerun the stage prepare.") from None
    if set(table.column_names) != {"sample_id", "num_tokens"}:
        raise SparseBalanceError(
            f"{index}: columns sample_id, num_tokens: not there. rerun the stage prepare."
        )
    for name in table.column_names:
        if table[name].null_count or not pa.types.is_integer(table[name].type):
            what = "empty cells" if table[name].null_count else f"of type {table[name].type}"
            raise SparseBalanceError(
                f"{index}: {name}: {what}: not whole numbers throughout. rerun the stage prepare."
            )
    return make_samples(
        table["sample_id"].to_numpy().astype(np.int64),
        table["num_tokens"].to_numpy().astype(np.int64),
        source=index,
    )


def make_samples(sample_ids: IntArray, lengths: IntArray, *, source: Path) -> Samples:
    """Returns the samples if they can be planned; raises SparseBalanceError as `read_samples`."""
    if len(lengths) == 0:
        raise SparseBalanceError(f"{source}: no samples. give a data set that is not empty.")
    empty = np.flatnonzero(lengths < 1)
    if len(empty):
        row = int(empty[0])
        raise SparseBalanceError(
            f"{source}: row {row}: num_tokens = {lengths[row]}: a sample without tokens "
            f"(sample_id {sample_ids[row]}). leave it out of the data set."
        )
    values, counts = np.unique(sample_ids, return_counts=True)
    if (counts > 1).any():
        twice = int(values[counts > 1][0])
        raise SparseBalanceError(
            f"{source}: sample_id = {twice}: there {counts.max()} times. give each sample its own."
        )
    return Samples(sample_ids, lengths)
