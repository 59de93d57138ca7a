"""Writes the table and the figure of measured comparisons, beside the paper's numbers.

``PYTHONPATH=src python docs/results/ablation.py docs/results/ablation-2xh100.csv`` reads the csv
with its ``-steps.csv.gz`` and writes ``.md`` and ``.png`` of the same name. With ``--collect``,
behind it folders that `sbcore.ablation` wrote, both are made anew from those first, and
``-manifest.json`` with them. Several starts of one setting count together. Files without all
columns are refused.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sbcore.ablation.collect import AND, collect
from sbcore.ablation.ratios import Speedup, by_variant, paired_speedup
from sbcore.ablation.results import read_rows, read_steps
from sbcore.ablation.steps import MeasuredStep
from sbcore.ablation.table import COLUMNS, Place, variant_row
from sbcore.artifacts import replace_when_done, write_text
from sbcore.errors import SparseBalanceError
from sbcore.report.charts.speed import variant_colours
from sbcore.report.charts.style import INK, MUTED, PANEL, SURFACE, figure_style
from sbcore.train.flops import peak_flops

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASELINE = "baseline"
OVERS = (BASELINE, "baseline_packed", "dense")
ORDER = ("dense", *OVERS[:2], "lbb", "sab", "dst", "lbb_dst", "sab_dst", "sab_waterfill")
PAPER = {
    "baseline": (1.00, 1.81),
    "lbb": (1.23, None),
    "sab": (1.21, 1.41),
    "dst": (1.08, 1.73),
    "lbb_dst": (1.28, None),
    "sab_dst": (1.35, 1.34),
}
"""Speedup and imbalance of SparseBalance (arXiv 2604.13847), one node, DP2 PP4."""

_NOTE = """\
Measured: a round is one step of every variant on the same global batch, the variants in an order
drawn anew. Speedups are medians over rounds of the ratio of step times within a round (20th to 80th
percentile). *predicted* is the latency table's, for the same plans and budgets. The paper's figures
(arXiv 2604.13847: Qwen2.5-3B, ChatQA2-Long-SFT, DP2 x PP4, global batch 16, other GPUs) stand
beside for orientation: neither lengths nor parallelism are the same. Tokens and weights are random,
so coverage_delta says what routing of an untrained model gives. MFU counts the pairs really
attended; dense-equivalent counts all causal pairs, a measure of throughput and not of use. Both are
shares of 989 TFLOP/s (H100 SXM, dense bf16). *overhead* is the host's time in planning and tuning,
most of it beside the GPU's work, or waiting for room in its queue; *gap* is what the GPU waited for
decisions between two steps.
"""

_HEAD = (
    "variant",
    "steps",
    "ms per step",
    "p20-p80",
    *(f"over {name}" for name in OVERS),
    "paper, over baseline",
    "imbalance",
    "paper",
    "coverage_delta, points",
    "overhead, % (median)",
    "gap, %",
    "waiting, %",
    "tokens/s",
    "useful MFU, %",
    "dense-equivalent, %",
    "predicted, ms",
    "measured / predicted",
)

Steps = Mapping[str, Sequence[MeasuredStep]]


def main() -> None:
    """Writes the page and the picture of the csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("--collect", help="folders of starts", type=Path, nargs="+", default=[])
    arguments = parser.parse_args()
    path, folders = arguments.csv, arguments.collect
    try:
        if folders:
            collect(folders, path)
        found = read_comparison(path)
        write_text(path.with_suffix(".md"), page(found, picture=path.with_suffix(".png").name))
        draw(path.with_suffix(".png"), found)
    except SparseBalanceError as error:
        raise SystemExit(str(error)) from None


def read_comparison(path: Path) -> dict[Place, Steps]:
    """Returns the measured steps of each setting by variant; starts of one setting together."""
    rows = read_rows(path, COLUMNS)
    raw = read_steps(path.with_name(f"{path.stem}-steps.csv.gz"))
    named = {run_id for row in rows for run_id in row["run_id"].split(AND)}
    lacking = named ^ {place.run_id for place in raw}
    if lacking:
        raise SparseBalanceError(
            f"{path}: run_id = {', '.join(sorted(lacking))}: not in both csv and steps. "
            "copy both files of a comparison."
        )
    together: dict[Place, list[MeasuredStep]] = {}
    for number, (place, steps) in enumerate(raw.items()):
        apart = [replace(step, round=step.round + 1_000_000 * number) for step in steps]
        together.setdefault(replace(place, run_id=""), []).extend(apart)
    return {place: in_order(by_variant(steps)) for place, steps in together.items()}


def in_order(steps: Steps) -> Steps:
    """Returns the variants as they build on each other, others behind."""
    return {name: steps[name] for name in (*ORDER, *steps) if name in steps}


def page(found: Mapping[Place, Steps], *, picture: str) -> str:
    """Returns the page of all settings."""
    parts = [f"# Measured comparison\n\n{_NOTE}\n![Speedups over baseline]({picture})\n"]
    parts += [f"## {title(place)}\n\n{table(place, steps)}\n" for place, steps in found.items()]
    return "\n".join(parts)


def title(place: Place) -> str:
    """Returns what was measured, in a line."""
    return (
        f"{place.shape}, {place.lengths}, barrier `{place.barrier}`, "
        f"global batch {place.global_batch}, {place.device}"
    )


def table(place: Place, steps: Steps) -> str:
    """Returns the Markdown table of a setting."""
    lines = [list(_HEAD), ["---"] * len(_HEAD)]
    lines += [list(cells(place, name, steps)) for name in steps]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(place: Place, name: str, steps: Steps) -> Iterator[str]:
    """Yields the cells of a variant's line."""
    row = variant_row(place, name, steps[name])
    speedup, imbalance = PAPER.get(name, (None, None))
    delta = row["coverage_delta"]
    yield f"`{name}`"
    yield str(row["steps"])
    yield f"{float(row['step_ms_p50']):,.0f}"
    yield f"{float(row['step_ms_p20']):,.0f}-{float(row['step_ms_p80']):,.0f}"
    for other in OVERS:
        yield ratio(paired_speedup(steps[name], steps.get(other, [])))
    yield figure_or_dash(speedup)
    yield f"{float(row['imbalance']):.2f}"
    yield figure_or_dash(imbalance)
    yield "-" if delta == "" else f"{float(delta):+.1f}"
    yield f"{np.median([100 * step.overhead_ms / step.step_ms for step in steps[name]]):.2f}"
    yield gap(steps[name])
    yield f"{float(row['waiting_pct']):.1f}"
    yield f"{float(row['tokens_per_s']):,.0f}"
    yield from shares_of_peak(place, steps[name])
    yield f"{float(row['predicted_ms']):,.0f}"
    yield f"{np.median([step.step_ms / step.predicted_ms for step in steps[name]]):.2f}"


def shares_of_peak(place: Place, steps: Sequence[MeasuredStep]) -> Iterator[str]:
    """Yields the share of the devices' peak that went into useful and dense-equivalent work."""
    peak, num_ranks = peak_flops(place.device), int(place.device.split(" x ")[0])
    seconds = sum(step.step_ms for step in steps) / 1e3
    for done in (
        sum(step.useful_tflop for step in steps),
        sum(step.dense_equivalent_tflop for step in steps),
    ):
        yield "-" if peak is None else f"{100 * done * 1e12 / (peak * num_ranks * seconds):.1f}"


def gap(steps: Sequence[MeasuredStep]) -> str:
    """Returns the median share of a step that the device waited for decisions."""
    known = [100 * step.gap_ms / step.step_ms for step in steps if step.gap_ms is not None]
    return f"{np.median(known):.2f}" if known else "-"


def ratio(speedup: Speedup | None) -> str:
    """Returns `1.52 (1.47-1.60)`."""
    if speedup is None:
        return "-"
    return f"{speedup.median:.2f} ({speedup.p20:.2f}-{speedup.p80:.2f})"


def figure_or_dash(value: float | None) -> str:
    """Returns the paper's number, a dash where it gives none."""
    return "-" if value is None else f"{value:.2f}"


def draw(path: Path, found: Mapping[Place, Steps]) -> None:
    """Writes the picture: a panel per setting, speedups with their spread, the paper's beside."""
    from matplotlib.figure import Figure

    places = [place for place, steps in found.items() if BASELINE in steps]
    rows = -(-len(places) // 2)
    most = max(len(steps) for steps in found.values())
    with figure_style():
        size = (2 * PANEL[0], rows * (0.9 + 0.28 * most))
        figure = Figure(figsize=size, dpi=150)
        panels = np.ravel(figure.subplots(rows, 2, sharex=True, squeeze=False))
        for axes, place in zip(panels, places, strict=False):
            plot(axes, found[place])
            axes.set_title(wrapped(place), fontsize=8, loc="left", color=INK)
        for axes in panels[len(places) :]:
            axes.set_visible(False)
        figure.supxlabel(
            f"Measured speedup over {BASELINE}: median and 20th to 80th percentile of rounds. "
            "Open diamond: the paper's, on other lengths, parallelism and GPUs.",
            fontsize=8,
        )
        with replace_when_done(path) as part:
            figure.savefig(part, format="png", metadata={"Software": None})


def wrapped(place: Place) -> str:
    """Returns the title in two lines."""
    return (
        f"{place.shape}, {place.lengths}, barrier {place.barrier},\n"
        f"global batch {place.global_batch}, {place.device}"
    )


def plot(axes: "Axes", steps: Steps) -> None:
    """Draws a row per variant."""
    colours = variant_colours(list(dict.fromkeys((*ORDER, *steps))), BASELINE)
    for y, (name, measured) in enumerate(steps.items()):
        speedup = paired_speedup(measured, steps[BASELINE])
        paper, _ = PAPER.get(name, (None, None))
        if speedup is not None:
            spread = [speedup.p20, speedup.p80]
            axes.plot(spread, [y, y], color=colours[name], linewidth=5, alpha=0.3)
            axes.plot(speedup.median, y, "o", color=colours[name], markersize=6)
        if paper is not None:
            axes.plot(paper, y, "D", color=INK, markersize=4, markerfacecolor=SURFACE)
    axes.axvline(1.0, color=MUTED, linewidth=0.8)
    axes.set_yticks(range(len(steps)), list(steps), color=INK, fontsize=8)
    axes.set_ylim(len(steps) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


if __name__ == "__main__":
    main()
