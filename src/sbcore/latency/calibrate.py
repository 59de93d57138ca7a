"""What whole micro-batches take beyond their parts: floor, constant, and a factor on all work."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbcore.latency.additive import AdditiveLatency
from sbcore.latency.fit import predicted_work
from sbcore.latency.line import fit_bent_line, fit_times
from sbcore.latency.table import MeasuredPoint

_AGAIN = 4 / 3
"""What recomputation should cost: a forward beside a forward and a backward of twice its work. It
decides only where too few micro-batches were measured in one of the settings."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What was measured in the ranks."""

    floor_ms: float
    constant_ms: float
    scale: float
    """Work in whole micro-batches over that of the parts alone."""
    other_share: float
    """Work in the other setting of recomputation than the parts', over that in theirs."""


def calibrate(
    parts: AdditiveLatency,
    points: Sequence[MeasuredPoint],
    *,
    constant_ms: float,
    recompute: bool,
    device_type: str,
) -> Whole:
    """Returns what micro-batches that are not held out say; ``recompute`` is the parts' setting.

    What a tiny micro-batch takes beyond its work is the host's. On a GPU it hides behind longer
    work and is a floor: that of all micro-batches that are found to take no longer for their work,
    since the tiniest alone may be below it. On a CPU it comes on top of all work and is part of the
    constant. Without micro-batches to fit the parts' constant is taken.

    Raises ValueError when there is no floor.
    """
    floors = [p for p in points if p.part == "floor"]
    if not floors:
        raise ValueError("part = floor: missing")
    whole = [p for p in points if p.part == "micro_batch" and not p.held_out]
    floor = floors[0].median_ms
    if device_type != "cpu":
        if not whole:
            constant = min(constant_ms, floor)
            return Whole(floor - constant, constant, 1.0, 1.0)
        return _bent(parts, [floors[0], *whole], recompute=recompute)
    if not whole:
        beyond = floor - float(predicted_work(parts, floors[:1])[0])
        return Whole(0.0, max(beyond, 0.0), 1.0, 1.0)
    return _lines(parts, [floors[0], *whole], constant_ms=constant_ms, recompute=recompute)


def _lines(
    parts: AdditiveLatency,
    points: Sequence[MeasuredPoint],
    *,
    constant_ms: float,
    recompute: bool,
) -> Whole:
    """Returns two lines with one constant, no floor; what no two points tell is left as it is."""
    if len(points) < 2:
        return Whole(0.0, constant_ms, 1.0, 1.0)
    work, same = predicted_work(parts, points), _same(points, recompute)
    columns = np.stack([work * same, work * ~same, np.ones(len(points))], axis=1)
    times = np.array([point.median_ms for point in points])
    theirs, other, constant = fit_times(columns, times).tolist()
    scale = theirs or 1.0
    return Whole(0.0, constant, scale, (other or scale) / scale)


def _bent(parts: AdditiveLatency, points: Sequence[MeasuredPoint], *, recompute: bool) -> Whole:
    """Returns two lines with one constant that begin at one floor."""
    work, same = predicted_work(parts, points), _same(points, recompute)
    other = 1.0 / _AGAIN if recompute else _AGAIN
    columns = np.stack([work * same, work * ~same], axis=1)
    line = fit_bent_line(
        columns,
        np.array([point.median_ms for point in points]),
        believed=np.array([1.0, other]),
    )
    theirs, others = line.slopes.tolist()
    scale = theirs or others / other or 1.0
    share = (others or scale * other) / scale if (~same).any() else 1.0
    return Whole(line.floor - line.constant, line.constant, scale, share)


def _same(points: Sequence[MeasuredPoint], recompute: bool) -> NDArray[np.bool_]:
    return np.array([point.recompute == recompute for point in points], dtype=np.bool_)
