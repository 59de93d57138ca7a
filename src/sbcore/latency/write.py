"""From measured points to the files of the profile: table, header with its errors, picture."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from sbcore.artifacts import write_json
from sbcore.errors import SparseBalanceError
from sbcore.latency.analytic import AnalyticLatencyModel, fit_coefficients
from sbcore.latency.chart import draw_chart
from sbcore.latency.model import TableLatencyModel, fit_table, sequence_shares
from sbcore.latency.quality import measure_quality
from sbcore.latency.table import CHART, HEADER, TABLE, MeasuredPoint, write_points

_SEED = 0
"""Of the global batches that regret is averaged over."""


def write_profile(
    out: Path, head: dict[str, Any], points: list[MeasuredPoint], *, top_k: int
) -> dict[str, Any]:
    """Writes the three files, the header last; returns the header.

    Raises SparseBalanceError when the points are too few to interpolate.
    """
    points = sorted(points, key=lambda p: (p.part, p.length, p.top_k, p.num_sequences))
    block_size = head["block_size"]
    try:
        model = fit_table(
            points,
            block_size=block_size,
            num_layers=head["num_layers"],
            device_type=head["device_type"],
        )
    except ValueError as error:
        raise SparseBalanceError(f"latency: {error}. add points to the grid.") from None
    shares = sequence_shares(points, call_ms=model.call_ms)
    analytic = _fit_analytic(model, [p for p in shares if not p.held_out])
    check = partial(
        measure_quality,
        attention=[p for p in shares if p.held_out],
        micro_batches=[p for p in points if p.part == "micro_batch"],
        top_k=top_k,
        block_size=block_size,
        seed=_SEED,
    )
    head = head | {
        "floor_ms": model.floor_ms,
        "constant_ms": model.constant_ms,
        "call_ms": model.call_ms,
        "ms_per_token": model.ms_per_token,
        "optimizer_ms": next(p.median_ms for p in points if p.part == "optimizer"),
        "adjustments": asdict(model.surface.adjustments),
        "error": asdict(check(model)),
        "analytic": {
            "coefficients": analytic.coefficients.tolist(),
            "error": asdict(check(analytic)),
        },
    }
    write_points(out / TABLE, points)
    draw_chart(out / CHART, model, points, device=head["device"])
    write_json(out / HEADER, head)
    return head


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
