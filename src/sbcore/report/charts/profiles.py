"""Length and latency: what the balancer is up against, and what it knows."""

from typing import TYPE_CHECKING

import numpy as np

from sbcore.report.charts.style import (
    INK,
    MUTED,
    PANEL,
    SERIES,
    Chart,
    add_legend,
    figure_style,
    new_figure,
)
from sbcore.report.profiles import Latency, Lengths

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABEL_GAP = 0.062
"""Least distance of two line labels, as a share of the axis' height."""


def length_chart(lengths: Lengths) -> Chart:
    """Returns the shares of sequences and of tokens per range of lengths."""
    counts = np.array([bucket.count for bucket in lengths.buckets], dtype=float)
    tokens = np.array([bucket.token_share for bucket in lengths.buckets])
    at = np.arange(len(counts))
    with figure_style():
        figure, axes = new_figure(*PANEL)
        axes.bar(at - 0.21, 100 * counts / counts.sum(), 0.42, color=SERIES[0], label="sequences")
        axes.bar(at + 0.21, 100 * tokens, 0.42, color=SERIES[1], label="tokens")
        edges = [bucket.low for bucket in lengths.buckets] + [lengths.buckets[-1].high]
        axes.set_xticks(np.arange(len(edges)) - 0.5, [short_count(edge) for edge in edges])
        axes.set_xlabel("length, tokens")
        axes.set_ylabel("% of all")
        axes.grid(visible=False, axis="x")
        add_legend(axes, 2)
    note = (
        f"{lengths.count:,} sequences, mean {lengths.mean:,.0f}, longest {lengths.max:,} tokens. "
        "Where blue exceeds grey, few sequences hold most of the work."
    )
    return Chart("lengths", "Lengths", note, figure)


def latency_chart(latency: Latency) -> Chart:
    """Returns the attention's time by length, a line per top_k, both axes logarithmic."""
    budgets: list[int | None] = [*latency.budgets, None]
    with figure_style():
        figure, axes = new_figure(*PANEL)
        ends = []
        for i, top_k in enumerate(budgets):
            rows = latency.at(top_k)
            x, y = rows["length"].to_numpy(), rows["median_ms"].to_numpy()
            shade = 0.35 + 0.65 * (i + 1) / len(budgets)
            axes.fill_between(x, rows["p20_ms"], rows["p80_ms"], color=SERIES[1], alpha=0.15, lw=0)
            axes.plot(x, y, "o-", color=SERIES[1], alpha=shade, markersize=3.5)
            ends.append((float(x[-1]), float(y[-1]), f"top_k {top_k}" if top_k else "all blocks"))
        _log_axes(axes, latency.points["length"].unique().sort().to_list())
        label_ends(axes, ends)
        axes.set_xlabel("length, tokens")
        axes.set_ylabel("ms, one layer")
    return Chart("latency", "Latency", _latency_note(latency), figure)


def label_ends(axes: "Axes", ends: list[tuple[float, float, str]]) -> None:
    """Writes a label beside each line's last point, pushed apart where lines end together."""
    transform = axes.transData + axes.transAxes.inverted()
    below = -np.inf
    for x, y, text in sorted(ends, key=lambda end: end[1]):
        at_x, at_y = transform.transform((x, y))
        below = max(at_y, below + _LABEL_GAP)
        axes.text(at_x + 0.015, below, text, transform=axes.transAxes, va="center", color=INK)


def short_count(number: float) -> str:
    """Returns 512, 2K, 64K: lengths as they are usually said."""
    return f"{number:.0f}" if number < 1024 else f"{number / 1024:.3g}K"


def _log_axes(axes: "Axes", lengths: list[int]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(right=lengths[-1] * (lengths[-1] / lengths[0]) ** 0.2)
    axes.set_xticks(lengths, [short_count(length) for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    bottom, top = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if top / bottom < 100 else (1,)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.tick_params(axis="both", colors=MUTED)


def _latency_note(latency: Latency) -> str:
    head, error = latency.head, latency.head.error
    return (
        f"Measured on {head.device}: one layer's attention, forward and backward, blocks of "
        f"{head.block_size} tokens; band: 20th to 80th percentile. On points left out of the fit "
        f"the model errs by {100 * error.mape:.1f} % (rank correlation "
        f"{error.rank_correlation:.3f}); plans made with it take {100 * error.regret:.1f} % longer "
        "than plans made with the measured times."
    )
