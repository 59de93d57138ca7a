"""One step seen from every rank: which micro-batch ran when, and who waited."""

from typing import TYPE_CHECKING

import numpy as np

from sbcore.report.charts.style import (
    COMPUTE,
    INK,
    PANEL,
    SURFACE,
    WAITING,
    Chart,
    figure_style,
    new_figure,
)
from sbcore.report.collect import Training
from sbcore.report.steps import Steps

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

_LABEL_SHARE = 0.085
"""Narrowest bar, as a share of the axis, that has room for its number of tokens."""
_BAR_HEIGHT = 0.66


def typical_step(steps: Steps) -> int:
    """Returns the measured step whose time is nearest to the median."""
    step_ms = steps.step_ms[steps.measured]
    nearest = np.abs(step_ms - np.median(step_ms)).argmin()
    return int(steps.step[steps.measured][nearest])


def timelines(trainings: dict[str, Training], step: int) -> list[Chart]:
    """Returns a chart per variant that has the step, all on the same time axis."""
    having = {name: x for name, x in trainings.items() if step in x.steps.step}
    if not having:
        return []
    limit = 1.03 * max(_at(training.steps, step, "step_ms") for training in having.values())
    return [_timeline(name, training, step, limit=limit) for name, training in having.items()]


def _timeline(variant: str, training: Training, step: int, *, limit: float) -> Chart:
    spans = training.spans.filter(training.spans["step"] == step)
    num_ranks = training.summary.num_ranks
    end = _at(training.steps, step, "step_ms")
    with figure_style():
        figure, axes = new_figure(PANEL[0], 0.7 + 0.36 * num_ranks)
        for span in spans.iter_rows(named=True):
            _draw_span(axes, span, limit)
        axes.axvline(end, color=INK, linewidth=1.4)
        axes.set_yticks(range(num_ranks), [f"rank {rank}" for rank in range(num_ranks)])
        axes.set_ylim(num_ranks - 0.5, -0.5)
        axes.set_xlim(0, limit)
        axes.set_xlabel("ms since the step began")
        axes.grid(visible=False, axis="y")
    return Chart(f"timeline-{variant}", variant, _note(training.steps, spans, step), figure)


def _draw_span(axes: "Axes", span: dict[str, float], limit: float) -> None:
    rank, start, compute = span["rank"], span["start_ms"], span["compute_ms"]
    axes.barh(rank, compute, _BAR_HEIGHT, left=start, color=COMPUTE, ec=SURFACE, lw=1.2)
    axes.barh(rank, span["waiting_ms"], _BAR_HEIGHT, left=start + compute, color=WAITING)
    if compute > _LABEL_SHARE * limit:
        middle, text = start + compute / 2, f"{span['num_tokens']:,.0f}"
        axes.text(middle, rank, text, ha="center", va="center", color=SURFACE, fontsize=8.5)


def _note(steps: Steps, spans: "pl.DataFrame", step: int) -> str:
    waiting = np.nanmean(steps.waiting_ms[steps.step == step])
    return (
        f"{_at(steps, step, 'step_ms'):,.0f} ms for {spans['num_tokens'].sum():,} tokens; "
        f"imbalance {_at(steps, step, 'imbalance'):.2f}, "
        f"a rank waited {waiting:,.0f} ms on average."
    )


def _at(steps: Steps, step: int, name: str) -> float:
    return float(getattr(steps, name)[steps.step == step][0])
