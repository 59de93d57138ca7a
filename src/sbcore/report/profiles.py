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
    regret: float
    """Time of plans made with the model / with the truth - 1."""


class LatencyHead(Contract):
    """``profile/latency.json``."""

    device: str
    block_size: int
    floor_ms: float
    constant_ms: float
    error: LatencyFit

    @property
    def empty_ms(self) -> float:
        """What a micro-batch takes however little is in it."""
        return self.floor_ms + self.constant_ms


@dataclass(frozen=True)
class Latency:
    """What was measured of one layer's attention: a sequence's share where several were packed."""

    head: LatencyHead
    points: "pl.DataFrame"
    """length, top_k, median_ms, p20_ms, p80_ms, by length; top_k is at most num_blocks."""

    @property
    def budgets(self) -> list[int]:
        """Every top_k that leaves out blocks of some length."""
        sparse = self.points.filter(self.points["top_k"] < self.points["num_blocks"])
        return sparse["top_k"].unique().sort().to_list()

    def at(self, top_k: int | None) -> "pl.DataFrame":
        """Returns the points of a budget by length, shorter sequences dense; None: all dense."""
        import polars as pl

        blocks = pl.col("num_blocks")
        wanted = blocks if top_k is None else pl.min_horizontal(blocks, pl.lit(top_k))
        return self.points.filter(pl.col("top_k") == wanted)


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
    columns = ("part", "length", "top_k", "num_sequences", "median_ms", "p20_ms", "p80_ms")
    points = read_columns(table, (*columns, "held_out")).filter(
        (pl.col("part") == "attention") & ~pl.col("held_out")
    )
    header = read_contract(head, LatencyHead)
    num_blocks = -(-pl.col("length") // header.block_size)
    shares = points.with_columns(pl.col("median_ms", "p20_ms", "p80_ms") / pl.col("num_sequences"))
    largest = shares.sort("num_sequences").unique(["length", "top_k"], keep="last")
    return Latency(header, largest.with_columns(num_blocks=num_blocks).sort("length"))
