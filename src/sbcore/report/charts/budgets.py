"""What tuning did: top_k against its target, by step and by length, and the coverage it kept."""

from typing import TYPE_CHECKING

import numpy as np

from sbcore.report.charts.profiles import short_count
from sbcore.report.charts.style import INK, SMALL_PANEL, Chart, figure_style, new_figure

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

_NUM_RANGES = 10
"""Ranges of length, equal in the logarithm."""


def budget_charts(variant: str, ledger: "pl.DataFrame", *, colour: str) -> list[Chart]:
    """Returns top_k over steps, top_k by length, and coverage, of a tuned variant."""
    charts = [
        _by_step(variant, ledger, colour=colour),
        _by_length(variant, ledger, colour=colour),
    ]
    measured = ledger.filter(ledger["coverage"].is_finite() & ledger["coverage_k0"].is_finite())
    if len(measured):
        charts.append(_coverage(variant, measured, colour=colour))
    return charts


def _by_step(variant: str, ledger: "pl.DataFrame", *, colour: str) -> Chart:
    table = _token_means(ledger, ["layer", "step"], ["top_k", "top_k_target"])
    with figure_style():
        figure, axes = new_figure(*SMALL_PANEL)
        for rows, shade in _layers(table):
            axes.plot(rows["step"], rows["top_k"], color=colour, alpha=shade)
            axes.plot(rows["step"], rows["top_k_target"], color=INK, alpha=0.5 * shade, lw=0.9)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("step")
        axes.set_ylabel("top_k, blocks")
    note = (
        f"Mean over a step's tokens. Thick: used. Thin: target before the layer's clamp. {_SHADES}"
    )
    return Chart(f"budgets-{variant}", f"{variant}: budget by step", note, figure)


def _by_length(variant: str, ledger: "pl.DataFrame", *, colour: str) -> Chart:
    import polars as pl

    low, high = np.log2([ledger["num_tokens"].min(), ledger["num_tokens"].max() + 1])
    index = ((pl.col("num_tokens").log(2) - low) / (high - low) * _NUM_RANGES).floor()
    table = (
        ledger.group_by(index.alias("range"))
        .agg(
            pl.col("num_tokens").median(),
            pl.col("top_k").median(),
            pl.col("top_k_target").median(),
            pl.col("top_k").quantile(0.2).alias("p20"),
            pl.col("top_k").quantile(0.8).alias("p80"),
        )
        .sort("range")
    )
    with figure_style():
        figure, axes = new_figure(*SMALL_PANEL)
        x = table["num_tokens"]
        axes.fill_between(x, table["p20"], table["p80"], color=colour, alpha=0.2, lw=0)
        axes.plot(x, table["top_k"], "o-", color=colour, markersize=4)
        axes.plot(x, table["top_k_target"], color=INK, alpha=0.5, lw=0.9)
        _length_axis(axes, low, high)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("top_k, blocks")
    note = "All layers and steps. Line: median used, band: 20th to 80th percentile. Thin: target."
    return Chart(f"budgets-by-length-{variant}", f"{variant}: budget by length", note, figure)


def _coverage(variant: str, ledger: "pl.DataFrame", *, colour: str) -> Chart:
    table = _token_means(ledger, ["layer", "step"], ["coverage", "coverage_k0"])
    with figure_style():
        figure, axes = new_figure(*SMALL_PANEL)
        for rows, shade in _layers(table):
            axes.plot(rows["step"], rows["coverage"], color=colour, alpha=shade)
            axes.plot(rows["step"], rows["coverage_k0"], color=INK, alpha=0.5 * shade, lw=0.9)
        axes.set_xlabel("step")
        axes.set_ylabel("coverage, 0..1")
    note = (
        "Share of the routing mass in the chosen blocks, mean over a step's tokens. "
        f"Thick: at the budget used. Thin: at the fixed budget. {_SHADES}"
    )
    return Chart(f"coverage-{variant}", f"{variant}: coverage", note, figure)


_SHADES = "Layers from pale (first) to full (last)."


def _token_means(ledger: "pl.DataFrame", keys: list[str], names: list[str]) -> "pl.DataFrame":
    """Returns token-weighted means per group, sorted by its keys."""
    import polars as pl

    weight = pl.col("num_tokens")
    means = [((pl.col(name) * weight).sum() / weight.sum()).alias(name) for name in names]
    return ledger.group_by(keys).agg(means).sort(keys)


def _layers(table: "pl.DataFrame") -> "list[tuple[pl.DataFrame, float]]":
    """Returns each layer's rows with the strength of its line."""
    parts = table.partition_by("layer", maintain_order=True)
    return [(rows, 0.4 + 0.6 * (i + 1) / len(parts)) for i, rows in enumerate(parts)]


def _length_axis(axes: "Axes", low: float, high: float) -> None:
    from matplotlib.ticker import NullLocator

    ticks = 2.0 ** np.arange(np.ceil(low), np.floor(high) + 1)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [short_count(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("length, tokens")
