"""A budget curve as a table and as a figure, both from the content of ``budget_curve.json``."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbcore.artifacts import replace_when_done

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FULL = "full"


def write_curve(summary: Mapping[str, Any], path: Path) -> None:
    """Writes a row per budget and task; ``low`` and ``high`` bound the difference to full."""
    columns = ("top_k", "budget_tokens", "task", "num_examples", "score", "low", "high")
    with replace_when_done(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(columns)
        for point in summary["budgets"]:
            for task, score in point["scores"].items():
                place = (point["top_k"] or FULL, point["budget_tokens"], task)
                interval = point["difference_to_full"][task]
                rows.writerow([*place, summary["num_examples"][task], score, *interval])


def draw_curve(summary: Mapping[str, Any]) -> "Figure":
    """Returns the figure of a ``budget_curve.json``: a line per task, the mean in black."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    points = summary["budgets"]
    labels = [FULL if point["top_k"] is None else str(point["top_k"]) for point in points]
    with mpl.rc_context({"font.size": 9, "figure.constrained_layout.use": True}):
        figure = Figure(figsize=(6.4, 3.6))
        axes = figure.add_subplot()
        for task in points[0]["scores"]:
            axes.plot(labels, [point["scores"][task] for point in points], "o-", ms=4, label=task)
        means = [point["score_mean"] for point in points]
        axes.plot(labels, means, "o-", color="black", lw=2.4, ms=5, label="mean")
        if (trained := str(summary["trained_top_k"])) in labels:
            axes.axvline(labels.index(trained), color="grey", lw=1, ls=":", label="trained with")
        axes.set_ylim(0, 102)  # markers at 100 stay whole
        when = "" if summary["decoding"] == "sparse" else ", while the prompt is read"
        axes.set_xlabel(f"top_k, blocks of {summary['block_size']} tokens{when}")
        axes.set_ylabel("score, %")
        axes.grid(visible=True, alpha=0.3)
        figure.legend(loc="outside right upper", frameon=False)
    return figure
