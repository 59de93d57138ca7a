"""Step times of the variants, and what the time went into."""

from typing import TYPE_CHECKING

import numpy as np

from sbcore.report.charts.style import (
    COMPUTE,
    INK,
    MUTED,
    OTHER,
    PANEL,
    SERIES,
    SURFACE,
    WAITING,
    Chart,
    figure_style,
    new_figure,
)
from sbcore.report.collect import Training
from sbcore.report.steps import Steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Trainings = dict[str, Training]


def variant_colours(variants: list[str], baseline: str) -> dict[str, str]:
    """Returns a colour per variant: grey for the baseline, the others in turn."""
    others = [name for name in variants if name != baseline]
    hues = SERIES[1:]
    return {baseline: SERIES[0]} | {name: hues[i % len(hues)] for i, name in enumerate(others)}


def step_times(trainings: Trainings, colours: dict[str, str]) -> Chart:
    """Returns medians with their spread, and what was predicted, a line per variant."""
    with figure_style():
        figure, axes = new_figure(PANEL[0], 0.9 + 0.42 * len(trainings))
        for y, (name, training) in enumerate(trainings.items()):
            spread = training.summary.step_time_ms
            predicted = np.median(training.steps.predicted_ms[training.steps.measured])
            axes.plot([spread.p20, spread.p80], [y, y], color=colours[name], linewidth=6, alpha=0.3)
            axes.plot(spread.median, y, "o", color=colours[name], markersize=9)
            axes.plot(predicted, y, "D", color=INK, markersize=5, markerfacecolor=SURFACE)
        _name_rows(axes, list(trainings))
        axes.set_xlim(left=0)
        axes.set_xlabel("ms per step")
    note = (
        "Dot: measured median. Bar: 20th to 80th percentile of steps. "
        "Open diamond: predicted median, of micro-batches and the update."
    )
    return Chart("step-times", "Time of a step", note, figure)


def time_parts(trainings: Trainings) -> Chart:
    """Returns stacked shares of the step time, a bar per variant."""
    with figure_style():
        figure, axes = new_figure(PANEL[0], 0.9 + 0.42 * len(trainings))
        for y, training in enumerate(trainings.values()):
            left = 0.0
            for share, colour in zip(parts_pct(training.steps), _PART_COLOURS, strict=True):
                axes.barh(y, share, left=left, height=0.62, color=colour)
                if share >= 7:
                    shade = SURFACE if colour == COMPUTE else INK
                    axes.text(
                        left + share / 2, y, f"{share:.0f}", ha="center", va="center", color=shade
                    )
                left += share
        _name_rows(axes, list(trainings))
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of the step, mean over ranks and steps")
        axes.grid(visible=False)
    note = (
        "Blue: computing. Amber: in collectives, waiting and transfer. "
        "Grey: tuning, data, optimizer, rest."
    )
    return Chart("time-parts", "Where the time goes", note, figure)


_PART_COLOURS = (COMPUTE, WAITING, OTHER)


def parts_pct(steps: Steps) -> tuple[float, float, float]:
    """Returns computing, waiting and the rest of the measured steps, percent of their time."""
    total = steps.step_ms[steps.measured].sum()
    compute = 100 * float(np.nanmean(steps.compute_ms[steps.measured], axis=1).sum() / total)
    waiting = 100 * float(np.nanmean(steps.waiting_ms[steps.measured], axis=1).sum() / total)
    return compute, waiting, max(0.0, 100 - compute - waiting)


def _name_rows(axes: "Axes", names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="x", colors=MUTED)
    axes.grid(visible=False, axis="y")
