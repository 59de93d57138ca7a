"""From measured points to the files of the profile: table, header with its errors, picture."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from sbcore.artifacts import write_json
from sbcore.errors import SparseBalanceError
from sbcore.latency.analytic import AnalyticLatencyModel, fit_coefficients
from sbcore.latency.chart import draw_chart
from sbcore.latency.fit import fit_parts, sequence_shares
from sbcore.latency.model import TableLatencyModel, fit_table, parts_model
from sbcore.latency.quality import Quality, measure_quality
from sbcore.latency.table import KNOWN, MeasuredPoint, write_points

_SEED = 0
"""Of the global batches that regret is averaged over."""


def write_profile(
    out: Path, head: Mapping[str, Any], points: list[MeasuredPoint], *, name: str, top_k: int
) -> dict[str, Any]:
    """Writes the three files of this name, the header last; returns the header.

    Raises SparseBalanceError when the points are too few to interpolate.
    """
    points = sorted(points, key=lambda p: (p.part, p.length, p.top_k, p.num_sequences, p.recompute))
    try:
        found, parts = _found(head, points, top_k=top_k)
    except ValueError as error:
        raise SparseBalanceError(f"latency: {error}. add points to the grid.") from None
    write_points(out / f"{name}.parquet", points)
    draw_chart(out / f"{name}.png", parts, points, device=head["device"])
    write_json(out / f"{name}.json", {**head, **found})
    return {**head, **found}


def _found(
    head: Mapping[str, Any], points: list[MeasuredPoint], *, top_k: int
) -> tuple[dict[str, Any], TableLatencyModel]:
    """Returns what the points say, and the model of the parts alone."""
    block_size, num_layers = head["block_size"], head["num_layers"]
    model = fit_table(
        points,
        block_size=block_size,
        num_layers=num_layers,
        device_type=head["device_type"],
        recompute_above=head["recompute_above_tokens"],
    )
    parts = parts_model(fit_parts(points, block_size=block_size, num_layers=num_layers))
    shares = sequence_shares(points, call_ms=parts.call_ms)
    alone = _fit_analytic(parts, [p for p in shares if not p.held_out])
    analytic = replace(
        alone,
        floor_ms=model.floor_ms,
        constant_ms=model.constant_ms,
        ms_per_token=model.ms_per_token,
        coefficients=model.scale * alone.coefficients,
    )

    checked = [p for p in points if p.part in ("micro_batch", *KNOWN) and p.held_out]
    work_share = model.shares.of(np.array([sum(p.packed) for p in checked]))

    def check(
        layer: TableLatencyModel | AnalyticLatencyModel,
        whole: TableLatencyModel | AnalyticLatencyModel,
    ) -> Quality:
        return measure_quality(
            layer,
            [p for p in shares if p.held_out],
            whole,
            checked,
            work_share=work_share,
            top_k=top_k,
            block_size=block_size,
            seed=_SEED,
        )

    found = {
        "floor_ms": model.floor_ms,
        "constant_ms": model.constant_ms,
        "scale": model.scale,
        "other_share": model.other_share,
        "call_ms": model.call_ms,
        "ms_per_token": model.ms_per_token,
        "optimizer_ms": next(p.median_ms for p in points if p.part == "optimizer"),
        "memory": None if model.memory is None else asdict(model.memory),
        "adjustments": asdict(model.surface.adjustments),
        "error": asdict(check(parts, model)),
        "analytic": {
            "coefficients": analytic.coefficients.tolist(),
            "error": asdict(check(alone, analytic)),
        },
    }
    return found, parts


def _fit_analytic(model: TableLatencyModel, fitted: list[MeasuredPoint]) -> AnalyticLatencyModel:
    """Returns the formula fitted to the same points, to compare the table with."""
    return AnalyticLatencyModel(
        block_size=model.surface.block_size,
        num_layers=model.num_layers,
        floor_ms=model.floor_ms,
        constant_ms=model.constant_ms,
        ms_per_token=model.ms_per_token,
        coefficients=fit_coefficients(fitted, block_size=model.surface.block_size),
    )
