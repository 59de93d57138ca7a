"""What tuning did to the time in which ranks would wait: over all variants, and step by step."""

import numpy as np

from sbcore.report.bubbles import Bubbles
from sbcore.report.charts.style import (
    INK,
    MUTED,
    PANEL,
    SMALL_PANEL,
    SURFACE,
    Chart,
    figure_style,
    new_figure,
)

_PALE = 0.35
"""Strength of what is drawn of ranks or of the time before tuning."""


def bubble_overview(bubbles: dict[str, Bubbles], colours: dict[str, str]) -> Chart:
    """Returns idle shares before and after tuning, a line per variant and dots per rank."""
    with figure_style():
        figure, axes = new_figure(PANEL[0], 0.9 + 0.46 * len(bubbles))
        for y, (name, found) in enumerate(bubbles.items()):
            before, after = (np.nanmean(pct, axis=0) for pct in (found.before_pct, found.after_pct))
            for ranks, height, colour in ((before, -0.14, MUTED), (after, 0.14, colours[name])):
                places = np.full(len(ranks), y + height)
                axes.plot(ranks, places, "o", color=colour, alpha=_PALE, markersize=4, mew=0)
            axes.plot(before.mean(), y - 0.14, "D", color=MUTED, markersize=6, mfc=SURFACE)
            axes.plot(after.mean(), y + 0.14, "o", color=colours[name], markersize=8)
        axes.set_yticks(range(len(bubbles)), list(bubbles), color=INK)
        axes.set_ylim(len(bubbles) - 0.5, -0.5)
        axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
        axes.set_xlabel("% of the step that a rank idles, predicted")
        axes.grid(visible=False, axis="y")
    note = (
        "Open diamond: mean over ranks at the fixed budget. Dot: after tuning. "
        "Small dots: single ranks. Means over the measured steps."
    )
    return Chart("bubbles", "Bubbles before and after tuning", note, figure)


def bubble_steps(variant: str, bubbles: Bubbles, *, colour: str) -> Chart:
    """Returns every rank's idle share by step, before and after."""
    with figure_style():
        figure, axes = new_figure(*SMALL_PANEL)
        num_ranks = bubbles.after_pct.shape[1]
        for rank in range(num_ranks):
            shade = 0.4 + 0.6 * (rank + 1) / num_ranks
            before, after = bubbles.before_pct[:, rank], bubbles.after_pct[:, rank]
            axes.plot(bubbles.step, before, color=INK, alpha=0.5 * shade, lw=0.9)
            axes.plot(bubbles.step, after, color=colour, alpha=shade)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("step")
        axes.set_ylabel("idle, % of the step")
    filled = bubbles.filled_pct
    told = "" if filled is None else f" {filled:.0f} % of the idle time is gone."
    note = (
        "Predicted. Thick: at the budgets used. Thin: at the fixed budget. "
        f"Ranks from pale (first) to full (last).{told}"
    )
    return Chart(f"bubbles-{variant}", f"{variant}: bubbles by rank", note, figure)
