"""The measured latency model: reads the table, predicts whole sequences, knows its reach.

N sequences, L layers. t(micro-batch) = max(floor, sum of sequences) + constant.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sbcore.artifacts import read_json
from sbcore.errors import SparseBalanceError
from sbcore.latency.surface import Surface, fit_surface
from sbcore.latency.table import HEADER, TABLE, MeasuredPoint, read_points
from sbcore.types import FloatArray, IntArray


@dataclass(frozen=True)
class TableLatencyModel:
    """Milliseconds by interpolation of measured points; a LatencyModel.

    ``call_ms`` is what a layer's attention costs whatever is packed into it. It is part of the
    constant of a micro-batch, not of its sequences, so that packed ones add up.
    """

    surface: Surface
    num_layers: int
    floor_ms: float
    constant_ms: float
    ms_per_token: float
    call_ms: float

    @staticmethod
    def read(folder: Path, *, block_size: int, device: str | None = None) -> "TableLatencyModel":
        """Returns the model of a latency profile.

        Raises:
            SparseBalanceError: The profile is missing or broken, of another block_size, or, when
                a device is named, of another device.
        """
        head = read_json(folder / HEADER)
        for key in ("num_layers", "device_type"):
            if not isinstance(head, dict) or key not in head:
                raise SparseBalanceError(
                    f"{folder / HEADER}: {key}: missing. rerun the stage profile-latency."
                )
        asked = {"block_size": block_size} | ({"device": device} if device is not None else {})
        for key, value in asked.items():
            if head.get(key) != value:
                raise SparseBalanceError(
                    f"{folder / HEADER}: {key} = {head.get(key)}: the table was measured for "
                    f"another {key} than {value}. rerun the stage profile-latency."
                )
        try:
            points = read_points(folder / TABLE)
            return fit_table(
                points,
                block_size=block_size,
                num_layers=head["num_layers"],
                device_type=head["device_type"],
            )
        except ValueError as error:
            if isinstance(error, SparseBalanceError):
                raise
            raise SparseBalanceError(
                f"{folder / TABLE}: {error}. delete the file and rerun the stage profile-latency."
            ) from None

    @property
    def longest(self) -> int:
        """Longest measured sequence, tokens."""
        return self.surface.longest

    def attention_ms(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        """Returns a sequence's share of one layer's attention, selection included; broadcasts."""
        lengths, top_k = np.broadcast_arrays(lengths, top_k)
        return self.surface.milliseconds(lengths, top_k)

    def linear_ms(self, lengths: IntArray) -> FloatArray:
        """Returns all the rest of the model for these tokens; adds up over packed sequences."""
        linear: FloatArray = lengths * np.float64(self.ms_per_token)
        return linear

    def predict(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        """Returns the whole model's time per sequence, [N]; top_k is [N] or [L, N]."""
        attention = self.attention_ms(lengths, top_k)
        layers = attention.sum(axis=0) if attention.ndim == 2 else attention * self.num_layers
        total: FloatArray = layers + self.linear_ms(lengths)
        return total

    def extrapolates(self, lengths: IntArray, top_k: IntArray) -> NDArray[np.bool_]:
        """Returns where the measured grid does not reach."""
        return self.surface.extrapolates(lengths, top_k)


def fit_table(
    points: Sequence[MeasuredPoint], *, block_size: int, num_layers: int, device_type: str
) -> TableLatencyModel:
    """Returns the model through the points that are not held out.

    What a tiny micro-batch takes beyond its work and constant is the host's. On a GPU it hides
    behind longer work and is a floor; on a CPU it comes on top of all work and joins the constant.

    Raises ValueError when a part is missing or the grid is too small to interpolate.
    """
    fitted = [point for point in points if not point.held_out]
    call_ms = call_overhead(fitted)
    attention = sequence_shares(fitted, call_ms=call_ms)
    _check_grid(attention, block_size=block_size)
    per_token, intercept = _line([point for point in fitted if point.part == "linear"])
    constant = intercept + num_layers * call_ms
    floors = [point.median_ms for point in fitted if point.part == "floor"]
    if not floors:
        raise ValueError("part = floor: missing")
    model = TableLatencyModel(
        surface=fit_surface(attention, block_size=block_size),
        num_layers=num_layers,
        floor_ms=max(floors[0] - constant, 0.0),
        constant_ms=constant,
        ms_per_token=per_token,
        call_ms=call_ms,
    )
    if device_type != "cpu":
        return model
    block, own = np.array([block_size]), np.array([1])
    host = max(model.floor_ms - float(model.predict(block, own)[0]), 0.0)
    return replace(model, floor_ms=0.0, constant_ms=constant + host)


def call_overhead(points: Sequence[MeasuredPoint]) -> float:
    """Returns what a layer's attention costs beyond its sequences: n * t_1 = t_n + (n - 1) * it.

    Taken where t_n was measured, at the shortest length; at most nine tenths of t_1.
    """
    attention = [point for point in points if point.part == "attention"]
    alone = {(p.length, p.top_k): p.median_ms for p in attention if p.num_sequences == 1}
    for p in attention:
        if p.num_sequences > 1 and (p.length, p.top_k) in alone:
            one = alone[p.length, p.top_k]
            overhead = (p.num_sequences * one - p.median_ms) / (p.num_sequences - 1)
            return min(max(overhead, 0.0), 0.9 * one)
    raise ValueError("part = attention: no packed point")


def sequence_shares(points: Sequence[MeasuredPoint], *, call_ms: float) -> list[MeasuredPoint]:
    """Returns the single sequences' attention without the call, at least a tenth of it."""
    return [
        replace(p, median_ms=max(p.median_ms - call_ms, 0.1 * p.median_ms))
        for p in points
        if p.part == "attention" and p.num_sequences == 1
    ]


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


def _line(points: Sequence[MeasuredPoint]) -> tuple[float, float]:
    """Returns slope and intercept, both >= 0, of time by tokens, nearest in relative squares."""
    if len(points) < 2:
        raise ValueError(f"part = linear: {len(points)} points: at least two are needed")
    tokens = np.array([point.length for point in points], dtype=np.float64)
    times = np.array([point.median_ms for point in points])
    design = np.stack([tokens / times, 1.0 / times], axis=1)
    slope, intercept = np.linalg.lstsq(design, np.ones(len(points)), rcond=None)[0]
    if intercept < 0:
        share = tokens / times
        slope, intercept = share.sum() / (share**2).sum(), 0.0
    if slope < 0:
        slope, intercept = 0.0, float(np.median(times))
    return float(slope), float(intercept)
