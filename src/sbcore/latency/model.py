"""The measured latency model: reads the table, predicts whole sequences, knows its reach.

N sequences, L layers. t(micro-batch) = max(floor, sum of sequences) + constant.
"""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbcore.artifacts import read_json
from sbcore.errors import SparseBalanceError
from sbcore.latency.additive import AdditiveLatency
from sbcore.latency.calibrate import Whole, calibrate
from sbcore.latency.dense import DenseTimes, fit_dense
from sbcore.latency.fit import Parts, fit_parts
from sbcore.latency.made_for import unstated
from sbcore.latency.memory import Memory, fit_memory
from sbcore.latency.packs import EVEN, Covered, WorkShares
from sbcore.latency.surface import Surface
from sbcore.latency.table import MeasuredPoint, profile_files, read_points
from sbcore.types import FloatArray, IntArray


@dataclass(frozen=True)
class TableLatencyModel(AdditiveLatency):
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
    scale: float
    """What sequences take in whole micro-batches, over what their parts took alone."""
    recompute: bool
    """Whether sequences are priced with layers recomputed: full micro-batches are."""
    recompute_above: int | None
    """Tokens above which a micro-batch is recomputed; None: none is."""
    other_share: float
    """Work of a micro-batch in the other setting of recomputation, over that as priced."""
    memory: Memory | None
    """None where memory was not measured."""
    optimizer_ms: float
    """One update of all weights."""
    dense: DenseTimes | None
    """One layer's dense attention; None where it was not measured."""

    @property
    def update_ms(self) -> float:
        """What the optimizer's update adds to a step."""
        return self.optimizer_ms

    @staticmethod
    def read(profile: Path, *, block_size: int, device: str | None = None) -> "TableLatencyModel":
        """Returns the model of a latency profile: its folder, or its table with a json beside it.

        Raises:
            SparseBalanceError: The profile is missing or broken, of another block_size, or, when
                a device is named, of another device.
        """
        table, header = profile_files(profile)
        head = _read_head(header, block_size=block_size, device=device)
        try:
            return fit_table(
                read_points(table),
                block_size=block_size,
                num_layers=head["num_layers"],
                device_type=head["device_type"],
                recompute_above=head.get("recompute_above_tokens"),
            )
        except ValueError as error:
            if isinstance(error, SparseBalanceError):
                raise
            raise SparseBalanceError(
                f"{table}: {error}. delete the file and rerun the stage profile-latency."
            ) from None

    @property
    def longest(self) -> int:
        """Longest measured sequence, tokens."""
        return self.surface.longest

    def attention_ms(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        """Returns a sequence's share of one layer's attention, selection included; broadcasts."""
        lengths, top_k = np.broadcast_arrays(lengths, top_k)
        return self.scale * self.surface.milliseconds(lengths, top_k)

    @property
    def shares(self) -> WorkShares:
        """Factors on a micro-batch's work: short ones are not recomputed, and prices say they are.

        Or the other way round, where full micro-batches are not recomputed.
        """
        if self.recompute_above is None:
            return EVEN
        if self.recompute:
            return WorkShares(self.recompute_above, self.other_share, 1.0)
        return WorkShares(self.recompute_above, 1.0, self.other_share)

    def covered(self, lengths: IntArray, top_k: IntArray) -> Covered | None:
        """Returns where dense attention runs and what it saves; top_k is [N] or [L, N]."""
        if self.dense is None:
            return None
        least = top_k.min(axis=0) if top_k.ndim == 2 else top_k
        saved = self.attention_ms(lengths, least) - self.scale * self.dense.milliseconds(lengths)
        return Covered(least * self.surface.block_size, self.num_layers * saved)

    def memory_gib(self, lengths: IntArray) -> float | None:
        """Returns the peak of a micro-batch that packs these sequences, [N], above the model's own.

        None where memory was not measured (on a CPU, or by an older profile).
        """
        return None if self.memory is None else self.memory.gib(int(np.sum(lengths)))

    def extrapolates(self, lengths: IntArray, top_k: IntArray) -> NDArray[np.bool_]:
        """Returns where the measured grid does not reach."""
        return self.surface.extrapolates(lengths, top_k)


def fit_table(
    points: list[MeasuredPoint],
    *,
    block_size: int,
    num_layers: int,
    device_type: str,
    recompute_above: int | None,
) -> TableLatencyModel:
    """Returns the model through the points that are not held out.

    Parts say how time grows with length and budget; whole micro-batches say what a micro-batch
    takes beyond its parts: floor, constant, and one factor on all work.

    Raises ValueError when a part is missing or the grid is too small to interpolate.
    """
    parts = fit_parts(points, block_size=block_size, num_layers=num_layers)
    alone = parts_model(parts)
    whole = calibrate(
        alone,
        points,
        constant_ms=parts.constant_ms,
        recompute=parts.recompute,
        device_type=device_type,
    )
    update_ms = next((p.median_ms for p in points if p.part == "optimizer"), 0.0)
    return replace(
        _made(parts, whole, recompute_above=recompute_above),
        memory=fit_memory(points, recompute_above=recompute_above),
        optimizer_ms=update_ms,
        dense=fit_dense(points, call_ms=parts.call_ms),
    )


def parts_model(parts: Parts) -> TableLatencyModel:
    """Returns the model that knows the parts alone, as they were measured."""
    alone = Whole(0.0, parts.constant_ms, scale=1.0, other_share=1.0)
    return _made(parts, alone, recompute_above=None)


def _made(parts: Parts, whole: Whole, *, recompute_above: int | None) -> TableLatencyModel:
    return TableLatencyModel(
        surface=parts.surface,
        num_layers=parts.num_layers,
        floor_ms=whole.floor_ms,
        constant_ms=whole.constant_ms,
        ms_per_token=whole.scale * parts.ms_per_token,
        call_ms=parts.call_ms,
        scale=whole.scale,
        recompute=parts.recompute,
        recompute_above=recompute_above,
        other_share=whole.other_share,
        memory=None,
        optimizer_ms=0.0,
        dense=None,
    )


def _read_head(path: Path, *, block_size: int, device: str | None) -> dict[str, Any]:
    head = read_json(path)
    for key in ("num_layers", "device_type"):
        if not isinstance(head, dict) or key not in head:
            raise SparseBalanceError(f"{path}: {key}: missing. rerun the stage profile-latency.")
    asked = {"block_size": block_size} | ({"device": device} if device is not None else {})
    for key, value in asked.items():
        if head.get(key) != value:
            raise SparseBalanceError(
                f"{path}: {key} = {head.get(key)}: the table was measured for "
                f"another {key} than {value}. rerun the stage profile-latency."
            )
    if os.environ.get("RANK", "0") == "0":  # every rank reads it, one line is enough
        sys.stderr.writelines(f"{line}\n" for line in unstated(path, head))
    return dict(head)
