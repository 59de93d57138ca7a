"""Draws the lengths of the demo's samples: lognormal, heavy-tailed, or as in a csv."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sbcore.config.data import DemoConfig, LengthDistribution
from sbcore.errors import SparseBalanceError


def draw_samples(demo: DemoConfig, *, seed: int) -> tuple[NDArray[np.int64], np.random.Generator]:
    """Returns the training samples' lengths in tokens, and what all else in them is drawn with.

    The same seed gives the same lengths, so they are known before the samples are made.

    Raises:
        SparseBalanceError: The csv is missing, or is none of lengths.
    """
    rng = np.random.default_rng([seed, 0])
    return draw_lengths(demo.lengths, demo.num_samples, rng), rng


def draw_lengths(
    config: LengthDistribution, num_samples: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Returns num_samples lengths in tokens, within the configured bounds.

    Raises:
        SparseBalanceError: The csv is missing, or is none of lengths.
    """
    if config.csv is None:
        drawn = rng.lognormal(np.log(config.median_tokens), config.sigma, num_samples)
    else:
        drawn = rng.choice(_first_numbers(Path(config.csv)), num_samples)
    bounded = np.clip(np.rint(drawn), config.min_tokens, config.max_tokens)
    return bounded.astype(np.int64)


def _first_numbers(path: Path) -> NDArray[np.float64]:
    """Returns the first column whose value in the first row of data is a number."""
    place = f"demo.lengths.csv = {path}"
    if not path.is_file():
        raise SparseBalanceError(f"{place}: no such file. correct the path.")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SparseBalanceError(f"{place}: {error}. give a csv in utf-8.") from None
    data = rows if rows and any(map(_is_number, rows[0])) else rows[1:]
    if not data or not any(map(_is_number, data[0])):
        raise SparseBalanceError(f"{place}: no numeric column. give one length in tokens per row.")
    column = next(i for i, value in enumerate(data[0]) if _is_number(value))
    for number, row in enumerate(data, start=1 + len(rows) - len(data)):
        if len(row) <= column or not _is_number(row[column]):
            raise SparseBalanceError(
                f"{path}:{number}: column {column + 1} = {row[column : column + 1]}: not a number. "
                "correct the row."
            )
    return np.array([float(row[column]) for row in data])


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
