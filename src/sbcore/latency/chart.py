"""The picture of the latency table: time by length for each budget, measured and fitted."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sbcore.artifacts import replace_when_done
from sbcore.latency.fit import sequence_shares
from sbcore.latency.model import TableLatencyModel
from sbcore.latency.table import MeasuredPoint


def draw_chart(
    path: Path, model: TableLatencyModel, points: Sequence[MeasuredPoint], *, device: str
) -> None:
    """Writes the picture: filled points made the fit, open ones were held out of it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    attention = sequence_shares(points, call_ms=model.call_ms)
    block_size = model.surface.block_size
    sparse = [p for p in attention if p.top_k < -(-p.length // block_size)]
    budgets = sorted({p.top_k for p in sparse if not p.held_out})
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    lengths = np.unique(np.geomspace(min(p.length for p in attention), model.longest, 200).round())
    colors = mpl.colormaps["viridis"](np.linspace(0.85, 0.1, len(budgets) + 1))
    for budget, color in zip([*budgets, None], colors, strict=True):
        shown = [p for p in sparse if p.top_k == budget]
        if budget is None:
            shown = [p for p in attention if p not in sparse]
        reach = lengths if budget is None else lengths[lengths > budget * block_size]
        everything = model.longest if budget is None else budget
        at = reach.astype(np.int64)
        fitted = model.attention_ms(at, np.full_like(at, everything))
        name = "all blocks" if budget is None else f"top_k {budget}"
        axes.plot(reach, fitted, color=color, linewidth=1.4, label=name)
        _dots(axes, [p for p in shown if not p.held_out], color, filled=True)
        _dots(axes, [p for p in shown if p.held_out], color, filled=False)
    held_out = [p for p in sparse if p.held_out and p.top_k not in budgets]
    _dots(axes, held_out, "0.45", filled=False)
    axes.set(xscale="log", yscale="log", xlabel="Sequence length, tokens", ylabel="Milliseconds")
    axes.set_title(
        f"A sequence's share of one layer's attention, forward and backward, on {device}\n"
        "lines: the table; filled: measured for it; open: measured to check it",
        loc="left",
        fontsize=9,
    )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(visible=True, which="major", linewidth=0.4, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    with replace_when_done(path) as part:
        figure.savefig(part, format="png", dpi=150)


def _dots(
    axes: "object", points: Sequence[MeasuredPoint], color: "object", *, filled: bool
) -> None:
    axes.scatter(  # type: ignore[attr-defined]
        [p.length for p in points],
        [p.median_ms for p in points],
        s=16,
        facecolors=color if filled else "none",
        edgecolors=color,
        linewidths=0.9,
        zorder=3,
    )
