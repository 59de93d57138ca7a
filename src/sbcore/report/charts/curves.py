"""What was learned of coverage, and how well it foretold what steps lost or gained."""

from typing import TYPE_CHECKING

import numpy as np

from sbcore.report.charts.profiles import short_count
from sbcore.report.charts.style import (
    MUTED,
    PANEL,
    SERIES,
    Chart,
    add_legend,
    figure_style,
    new_figure,
)
from sbcore.report.steps import Steps

if TYPE_CHECKING:
    import polars as pl

_MOST_LENGTHS = 6
"""Lengths that are drawn, the longest ones: short sequences are covered whole."""


def curve_chart(variant: str, curves: "pl.DataFrame") -> Chart:
    """Returns coverage by budget, a line per length: mean over layers, band from least to most."""
    import polars as pl

    table = (
        curves.group_by("max_tokens", "top_k")
        .agg(
            pl.col("coverage").mean(),
            pl.col("coverage").min().alias("least"),
            pl.col("coverage").max().alias("most"),
        )
        .sort("max_tokens", "top_k")
    )
    lengths = table["max_tokens"].unique().sort().to_list()[-_MOST_LENGTHS:]
    with figure_style():
        figure, axes = new_figure(*PANEL)
        for i, length in enumerate(lengths):
            rows = table.filter(pl.col("max_tokens") == length)
            colour, label = SERIES[1 + i], f"≤ {short_count(length)}"
            axes.fill_between(
                rows["top_k"], rows["least"], rows["most"], color=colour, alpha=0.15, lw=0
            )
            axes.plot(rows["top_k"], rows["coverage"], color=colour, label=label)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}")
        axes.set_xlabel("top_k, blocks")
        axes.set_ylabel("coverage, 0..1")
        add_legend(axes, 3)
    note = (
        f"Moving averages of {variant} at its end, by length in tokens. Line: mean over layers; "
        "band: from the layer that covers least to the one that covers most. The wider the band, "
        "the more there is to gain by giving layers budgets of their own."
    )
    return Chart("coverage", "What a budget covers", note, figure)


def foretold_chart(steps: dict[str, Steps], colours: dict[str, str]) -> Chart:
    """Returns expected against measured coverage_delta, a dot per measured step."""
    with figure_style():
        figure, axes = new_figure(*PANEL)
        errors = []
        ends = [0.0]
        for name, those in steps.items():
            x, y = expected_and_measured(those)
            axes.plot(x, y, "o", color=colours[name], alpha=0.45, markersize=3.5, label=name, mew=0)
            errors.append(f"{name} {np.abs(y - x).mean():.2f}")
            ends += [*x, *y]
        span = [min(ends), max(ends)]
        axes.plot(span, span, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.locator_params(nbins=5)
        axes.set_xlabel("expected, points")
        axes.set_ylabel("measured, points")
        add_legend(axes, 3)
    note = (
        "coverage_delta of a step: expected of its targets before it ran, and measured after the "
        f"layers' clamp. Mean error, points: {', '.join(errors)}."
    )
    return Chart("coverage-foretold", "Change of coverage, expected and measured", note, figure)


def expected_and_measured(steps: Steps) -> "tuple[np.ndarray, np.ndarray]":
    """Returns coverage_delta of the measured steps that have both, expected and measured."""
    both = steps.measured & np.isfinite(steps.expected_coverage_delta + steps.coverage_delta)
    return steps.expected_coverage_delta[both], steps.coverage_delta[both]
