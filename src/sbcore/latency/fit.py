"""From measured points to numbers: attention by length and budget, the rest by tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sbcore.latency.additive import AdditiveLatency
from sbcore.latency.line import fit_line
from sbcore.latency.surface import Surface, fit_surface
from sbcore.latency.table import KNOWN, MeasuredPoint
from sbcore.types import FloatArray, IntArray


@dataclass(frozen=True)
class Parts:
    """What was measured in one process: attention by length and top_k, the rest by tokens."""

    surface: Surface
    num_layers: int
    constant_ms: float
    """Of all layers and the ends, for the device; the host's is not in it."""
    ms_per_token: float
    call_ms: float
    recompute: bool
    """Whether layers ran their forward twice."""


def fit_parts(points: Sequence[MeasuredPoint], *, block_size: int, num_layers: int) -> Parts:
    """Returns the parts through the points that are not held out.

    Raises ValueError when a part is missing or the grid is too small to interpolate.
    """
    fitted = [point for point in points if not point.held_out]
    call_ms = call_overhead(fitted)
    attention = sequence_shares(fitted, call_ms=call_ms)
    _check_grid(attention, block_size=block_size)
    linear = [point for point in fitted if point.part == "linear"]
    if len(linear) < 2:
        raise ValueError(f"part = linear: {len(linear)} points: at least two are needed")
    per_token, intercept = _linear(linear)
    surface = fit_surface(attention, block_size=block_size)
    return Parts(
        surface,
        num_layers,
        constant_ms=intercept + num_layers * call_ms,
        ms_per_token=per_token,
        call_ms=call_ms,
        recompute=any(point.recompute for point in fitted if point.part == "attention"),
    )


def _linear(points: Sequence[MeasuredPoint]) -> tuple[float, float]:
    """Returns the time per token and the constant, by the longer half of the points.

    Few tokens take what launching them takes: they say little of work, and as ratios count as much.
    """
    by_length = sorted(points, key=lambda point: point.length)
    longer = by_length[min(len(points) // 2, len(points) - 2) :]
    tokens = np.array([point.length for point in longer], dtype=np.float64)
    return fit_line(tokens, np.array([point.median_ms for point in longer]))


def predicted_work(model: AdditiveLatency, points: Sequence[MeasuredPoint]) -> FloatArray:
    """Returns the time of each point's packed sequences, without floor and constant. [P]."""
    return np.array([_work_of(model, point) for point in points])


def _work_of(model: AdditiveLatency, point: MeasuredPoint) -> float:
    lengths = np.array(point.packed, dtype=np.int64)
    top_k = np.full_like(lengths, point.top_k)
    work = float(model.predict(lengths, top_k).sum())
    dense = model.covered(lengths, top_k) if point.part in KNOWN else None
    if dense is None or dense.reach.min() < lengths.max():
        return work
    return work - float(dense.saving_ms.sum())


def lengths_of(points: Sequence[MeasuredPoint]) -> IntArray:
    """Returns the length of each point's sequences. [P]."""
    return np.array([point.length for point in points], dtype=np.int64)


def budgets_of(points: Sequence[MeasuredPoint]) -> IntArray:
    """Returns the budget of each point. [P]."""
    return np.array([point.top_k for point in points], dtype=np.int64)


def call_overhead(points: Sequence[MeasuredPoint]) -> float:
    """Returns what a layer's attention costs beyond its sequences: n * t_1 = t_n + (n - 1) * it.

    Taken where a length was measured alone and packed; at most nine tenths of t_1.
    """
    attention = [point for point in points if point.part == "attention"]
    alone = {(p.length, p.top_k): p.median_ms for p in attention if p.num_sequences == 1}
    for p in attention:
        if p.num_sequences > 1 and (p.length, p.top_k) in alone:
            one = alone[p.length, p.top_k]
            overhead = (p.num_sequences * one - p.median_ms) / (p.num_sequences - 1)
            return min(max(overhead, 0.0), 0.9 * one)
    raise ValueError("part = attention: no point both alone and packed")


def sequence_shares(points: Sequence[MeasuredPoint], *, call_ms: float) -> list[MeasuredPoint]:
    """Returns one sequence's attention without the call, at least a tenth of it, as measured.

    Where a length was measured alone and packed, the share in the pack is taken.
    """
    largest: dict[tuple[int, int, bool], MeasuredPoint] = {}
    for p in points:
        key = (p.length, p.top_k, p.held_out)
        if p.part == "attention" and (
            key not in largest or largest[key].num_sequences < p.num_sequences
        ):
            largest[key] = p
    return [
        replace(
            p,
            num_sequences=1,
            median_ms=max(p.median_ms - call_ms, 0.1 * p.median_ms) / p.num_sequences,
        )
        for p in largest.values()
    ]


def linear_points(points: Sequence[MeasuredPoint], *, num_layers: int) -> list[MeasuredPoint]:
    """Returns part `linear`: the ends, and every layer without its attention, by tokens."""
    found = {(p.part, p.length): p for p in points if p.part in ("layer", "ends", "own_block")}
    lengths = sorted(length for part, length in found if part == "layer")
    return [
        _linear_point(
            found["layer", length],
            found["ends", length],
            found["own_block", length],
            num_layers=num_layers,
        )
        for length in lengths
        if ("ends", length) in found and ("own_block", length) in found
    ]


def _linear_point(
    layer: MeasuredPoint, ends: MeasuredPoint, own_block: MeasuredPoint, *, num_layers: int
) -> MeasuredPoint:
    """Returns the point; what is left of a short layer's time is noise, but never nothing."""
    rest = layer.median_ms - ends.median_ms - own_block.median_ms
    rest = max(rest, 0.01 * layer.median_ms)
    spread = num_layers * rest / layer.median_ms
    return replace(
        layer,
        part="linear",
        top_k=0,
        median_ms=ends.median_ms + num_layers * rest,
        p20_ms=ends.p20_ms + spread * layer.p20_ms,
        p80_ms=ends.p80_ms + spread * layer.p80_ms,
        n=min(layer.n, ends.n, own_block.n),
    )


def _check_grid(attention: Sequence[MeasuredPoint], *, block_size: int) -> None:
    """Raises ValueError where interpolation would lack a neighbour."""
    lengths = {point.length for point in attention}
    budgets = {point.top_k for point in attention}
    if len(lengths) < 2 or len(budgets) < 2:
        raise ValueError(
            f"part = attention: {len(lengths)} lengths and {len(budgets)} budgets: "
            "at least two of each are needed"
        )
    for length in lengths:
        dense = -(-length // block_size)
        if not any(p.length == length and p.top_k == dense for p in attention):
            raise ValueError(f"length = {length}: the dense point, top_k {dense}, is missing")
