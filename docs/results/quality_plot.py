"""Draws quality-30m.png: scores by length of the model from scratch, a panel for each task.

    PYTHONPATH=src:kernels:docs/results python docs/results/quality_plot.py

Points are means over seeds, bars reach from the lowest to the highest seed.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from quality import EVERYTHING, GROUPS
from quality_recipe import VARIANTS

HERE = Path(__file__).parent
_COLORS = dict(zip(VARIANTS, ("#555555", "#0072b2", "#d55e00", "#009e73"), strict=True))
_PANELS = (2, 3)
_APART = 1.04  # variants stand side by side, so that bars do not hide each other

Row = dict[str, str]


def main() -> None:
    """Writes the picture beside the csv file."""
    with (HERE / "quality-30m.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if _is_shown(row)]
    figure = Figure(figsize=(9.5, 5.6), layout="constrained")
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    panels: Sequence[Axes] = figure.subplots(*_PANELS, sharex=True, sharey=True).flat
    for axes, task in zip(panels, tasks, strict=True):
        draw_task(axes, [row for row in rows if row["task"] == task])
        axes.set_title("mean of tasks" if task == EVERYTHING else task)
    figure.supxlabel("prompt, tokens")
    figure.supylabel("score")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.savefig(HERE / "quality-30m.png", dpi=110)


def _is_shown(row: Row) -> bool:
    return row["length"] != EVERYTHING and row["task"] not in GROUPS


def draw_task(axes: Axes, rows: Sequence[Row]) -> None:
    """Draws a line of each variant over the lengths."""
    for place, name in enumerate(VARIANTS):
        own = [row for row in rows if row["variant"] == name]
        score, low, high = (
            [float(row[key]) for row in own] for key in ("score", "score_min", "score_max")
        )
        below = [mean - least for mean, least in zip(score, low, strict=True)]
        above = [largest - mean for mean, largest in zip(score, high, strict=True)]
        axes.errorbar(
            [float(row["length"]) * _APART**place for row in own],
            score,
            yerr=[below, above],
            color=_COLORS[name],
            label=name,
            marker="o",
            markersize=3,
            linewidth=1.2,
            capsize=2,
        )
    lengths = sorted({int(row["length"]) for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.set_ylim(0, 103)
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
