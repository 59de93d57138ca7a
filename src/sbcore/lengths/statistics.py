"""Figures of a length distribution, computed lazily from the index of a data set."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl

_PERCENTILES = (10, 25, 50, 75, 90, 95, 99)
_BOUNDS = tuple(1024 * 2**power for power in range(0, 11))  # 1K..1M


@dataclass(frozen=True, slots=True)
class Bucket:
    """Samples of low <= length < high, tokens; shares are 0..1 of all samples, tokens, targets."""

    low: int
    high: int
    count: int
    sample_share: float
    token_share: float
    target_share: float


@dataclass(frozen=True, slots=True)
class LengthProfile:
    """What ``lengths.json`` holds; lengths in tokens, shares 0..1.

    ``cv`` is the standard deviation over the mean. ``target_share``: tokens that carry the loss.
    ``share_below`` and ``token_share_below``: of the samples and of the tokens, by length, up to
    the first bound above all of them. ``tail`` holds [length, share of samples at least that
    long, share of tokens in them] on a geometric grid.
    """

    count: int
    num_tokens: int
    mean: float
    sd: float
    cv: float
    min: int
    p10: float
    p25: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    max: int
    target_share: float
    share_below: dict[str, float]
    token_share_below: dict[str, float]
    buckets: list[Bucket]
    tail: list[tuple[int, float, float]]


def describe(index: "pl.LazyFrame", *, num_buckets: int) -> LengthProfile:
    """Returns the profile of an index with num_tokens and num_target_tokens, one row a sample."""
    import polars as pl

    length, targets = pl.col("num_tokens").cast(pl.Int64), pl.col("num_target_tokens")
    row = index.select(
        count=pl.len(),
        num_tokens=length.sum(),
        mean=length.mean(),
        sd=length.std(ddof=0),
        min=length.min(),
        **{f"p{p}": length.quantile(p / 100, "linear") for p in _PERCENTILES},
        max=length.max(),
        num_targets=targets.cast(pl.Int64).sum(),
    ).collect()
    figures = row.row(0, named=True)
    num_targets = figures.pop("num_targets")
    bounds = _bounds_up_to(figures["max"])
    grid = _edges(figures["min"], figures["max"], 64)
    below = _share_below(index, bounds, figures)
    above = _share_below(index, grid[:-1], figures)
    return LengthProfile(
        **figures,
        cv=figures["sd"] / figures["mean"],
        target_share=num_targets / figures["num_tokens"],
        share_below={
            str(bound): samples for bound, (samples, _) in zip(bounds, below, strict=True)
        },
        token_share_below={
            str(bound): tokens for bound, (_, tokens) in zip(bounds, below, strict=True)
        },
        buckets=_buckets(index, _edges(figures["min"], figures["max"], num_buckets), num_targets),
        tail=[
            (at, 1 - samples, 1 - tokens)
            for at, (samples, tokens) in zip(grid[:-1], above, strict=True)
        ],
    )


def _edges(low: int, high: int, parts: int) -> list[int]:
    """Returns rising whole edges, equal in the logarithm, the last one above high."""
    return np.unique(np.geomspace(low, high + 1, parts + 1).round().astype(int)).tolist()


def _bounds_up_to(longest: int) -> list[int]:
    reached = next((i for i, bound in enumerate(_BOUNDS) if bound > longest), len(_BOUNDS) - 1)
    return list(_BOUNDS[: reached + 1])


def _share_below(
    index: "pl.LazyFrame", bounds: list[int], figures: dict[str, int]
) -> list[tuple[float, float]]:
    """Returns for each bound the share of samples below it and the share of tokens in them."""
    import polars as pl

    length = pl.col("num_tokens").cast(pl.Int64)
    row = index.select(
        *((length < bound).sum().alias(f"samples{i}") for i, bound in enumerate(bounds)),
        *(length.filter(length < b).sum().alias(f"tokens{i}") for i, b in enumerate(bounds)),
    ).collect()
    found = row.row(0, named=True)
    return [
        (found[f"samples{i}"] / figures["count"], found[f"tokens{i}"] / figures["num_tokens"])
        for i in range(len(bounds))
    ]


def _buckets(index: "pl.LazyFrame", edges: list[int], num_targets: int) -> list[Bucket]:
    import polars as pl

    number = pl.sum_horizontal(pl.lit(0), *(pl.col("num_tokens") >= edge for edge in edges[1:-1]))
    grouped = (
        index.group_by(number.alias("bucket"))
        .agg(
            count=pl.len(),
            tokens=pl.col("num_tokens").cast(pl.Int64).sum(),
            targets=pl.col("num_target_tokens").cast(pl.Int64).sum(),
        )
        .collect()
    )
    rows = {row["bucket"]: row for row in grouped.iter_rows(named=True)}
    count, tokens = grouped["count"].sum(), grouped["tokens"].sum()
    empty = {"count": 0, "tokens": 0, "targets": 0}
    return [
        Bucket(
            low=low,
            high=high,
            count=(row := rows.get(i, empty))["count"],
            sample_share=row["count"] / count,
            token_share=row["tokens"] / tokens,
            target_share=row["targets"] / num_targets,
        )
        for i, (low, high) in enumerate(pairwise(edges))
    ]
