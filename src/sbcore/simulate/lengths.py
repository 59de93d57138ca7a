"""Lengths of sequences from a csv or from the index of prepared data."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sbcore.errors import SparseBalanceError
from sbcore.plan.index import read_samples
from sbcore.types import IntArray

_NAMES = ("token", "len")
"""What the column of lengths has in its name, the likelier first."""


def read_lengths(path: Path, *, column: str | None) -> IntArray:
    """Returns the lengths in tokens, in the order of the file.

    Of a csv the named column is read, else the first with "token" or "len" in its name.

    Raises:
        SparseBalanceError: The file is missing, has no such column or no rows, or a length is not
            a whole number above 0.
    """
    if path.suffix == ".parquet" and path.is_file():
        return read_samples(path).lengths
    if not path.is_file():
        raise SparseBalanceError(f"{path}: not a file. give a csv or an index.parquet.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            head = [name.strip() for name in next(rows, [])]
            at = _column(path, head, column)
            lengths = [_length(path, rows.line_num, head[at], row[at:]) for row in rows if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SparseBalanceError(f"{path}: not a csv ({error}). give a csv or parquet.") from None
    if not lengths:
        raise SparseBalanceError(f"{path}: no rows. give a length in every row below the names.")
    return np.array(lengths, dtype=np.int64)


def _column(path: Path, head: Sequence[str], asked: str | None) -> int:
    known = ", ".join(head) or "none"
    if asked is not None:
        if asked not in head:
            raise SparseBalanceError(
                f"{path}:1: --column = {asked}: no such column. available: {known}."
            )
        return head.index(asked)
    for part in _NAMES:
        for at, name in enumerate(head):
            if part in name.lower():
                return at
    raise SparseBalanceError(
        f"{path}:1: columns = {known}: none of lengths among them. name one with --column."
    )


def _length(path: Path, line: int, name: str, cells: Sequence[str]) -> int:
    """Returns the first cell as a length."""
    text = cells[0].strip() if cells else ""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (value >= 1 and value.is_integer()):
        raise SparseBalanceError(
            f"{path}:{line}: {name} = {text or 'nothing'}: not a whole number of tokens above 0. "
            "correct or leave out the row."
        )
    return int(value)
