"""The two profiles as the report draws them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sbcore.report.contracts import Contract, read_contract
from sbcore.report.steps import read_columns

if TYPE_CHECKING:
    import polars as pl


class Bucket(Contract):
    """Sequences of a range of lengths, tokens; the shares are 0..1."""

    low: float
    high: float
    count: int
    token_share: float


class Lengths(Contract):
    """``profile/lengths.json``."""

    count: int
    mean: float
    max: int
    buckets: list[Bucket]


class LatencyFit(Contract):
    """How well the latency model predicts points that it was not fitted to."""

    mape: float
    rank_correlation: float


class LatencyHead(Contract):
    """``profile/latency.json``."""

    device: str
    block_size: int
    error: LatencyFit


@dataclass(frozen=True)
class Latency:
    """What was measured of one layer's attention."""

    head: LatencyHead
    points: "pl.DataFrame"
    """length, top_k, median_ms, p20_ms, p80_ms."""


def read_lengths(folder: Path) -> Lengths | None:
    """Returns the length profile, None if it is not there."""
    path = folder / "lengths.json"
    return read_contract(path, Lengths) if path.exists() else None


def read_latency(folder: Path) -> Latency | None:
    """Returns the latency profile, None if it is not there."""
    import polars as pl

    head, table = folder / "latency.json", folder / "latency.parquet"
    if not (head.exists() and table.exists()):
        return None
    columns = ("part", "length", "top_k", "median_ms", "p20_ms", "p80_ms", "held_out")
    points = read_columns(table, columns).filter(
        (pl.col("part") == "attention") & ~pl.col("held_out")
    )
    return Latency(read_contract(head, LatencyHead), points.sort("top_k", "length"))
