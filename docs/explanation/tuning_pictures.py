"""Draws the pictures of tuning.md: the worked example, and time against coverage of the variants.

    PYTHONPATH=src python docs/explanation/tuning_pictures.py

Reads tuning_example.py and tuning_ablation.csv, writes tuning-example.png and tuning-variants.png.
"""

import csv
from pathlib import Path

import numpy as np
import tuning_example as example
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tuning_variants import SIMULATED

HERE = Path(__file__).parent
COLOURS = ("#0072b2", "#d55e00", "#009e73")
"""Of sequences A, B, C."""
MARKS = {"fixed": "o", "anchor mean": "s", "waterfill": "D"}
SHOWN = {"dst": "#555555", "lbb_dst": "#0072b2", "sab_dst": "#d55e00", "sab_waterfill": "#009e73"}


def main() -> None:
    """Writes both pictures."""
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    curves, ranks = figure.subplots(1, 2, width_ratios=(2, 3))
    draw_curves(curves)
    draw_ranks(ranks)
    figure.savefig(HERE / "tuning-example.png", dpi=110)
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    draw_variants(figure.subplots())
    figure.savefig(HERE / "tuning-variants.png", dpi=110)


def draw_curves(axes: Axes) -> None:
    """Draws what is known before the step, and what each tuner makes of it."""
    for name, curve, colour in zip(example.NAMES, example.CURVES, COLOURS, strict=True):
        axes.plot(example.LADDER, curve, color=colour)
        axes.text(12.15, curve[-1], name, color=colour, va="center")
    for number, (tuner, mark) in enumerate(MARKS.items()):
        top_k = example.make_policy(example.TUNERS[tuner]).decide(example.observation())[0]
        at = [np.interp(k, example.LADDER, c) for k, c in zip(top_k, example.CURVES, strict=True)]
        axes.scatter(
            top_k, at, s=(130, 75, 30)[number], marker=mark, label=tuner, zorder=3,
            facecolor="white" if number < 2 else "#222222", edgecolor="#222222",
        )  # fmt: skip
    axes.set(xlabel="top_k, blocks", ylabel="coverage", title="budgets on their curves")
    axes.legend(frameon=False, fontsize="small", loc="lower right")


def draw_ranks(axes: Axes) -> None:
    """Draws what the ranks take at the cheapest budgets, and the raises in their order."""
    top_k = example.cheapest()
    for i, rank in enumerate(example.RANK):
        start = sum(_ms(j, top_k[j]) for j in range(i) if example.RANK[j] == rank)
        axes.barh(rank, _ms(i, top_k[i]), left=start, color=COLOURS[i], alpha=0.35)
        axes.text(start + 0.15, rank, f"{example.NAMES[i]}, {top_k[i]} blocks", va="center")
    ends = example.rank_ms(top_k)
    for number, i in enumerate(_raised(), start=1):
        rank, ms = example.RANK[i], _ms(i, 1)
        axes.barh(rank, ms, left=ends[rank], color=COLOURS[i], edgecolor="white")
        axes.text(ends[rank] + ms / 2, rank, f"{number}", va="center", ha="center", color="white")
        ends[rank] += ms
    for ms, label in ((16.0, "at k0"), (float(ends.max()), "waterfill")):
        axes.axvline(ms, color="#222222", linestyle="--", linewidth=1)
        axes.text(ms - 0.1, 1.62, label, ha="right", va="center")
    axes.set(xlabel="ms", title="cheapest budgets, and raises in the order bought")
    axes.set_yticks((0, 1), ("rank 0", "rank 1"))
    axes.set_ylim(1.8, -0.6)


def draw_variants(axes: Axes) -> None:
    """Draws every situation's variants: speedup over baseline against coverage_delta."""
    with SIMULATED.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["variant"] in SHOWN]
    for name, colour in SHOWN.items():
        own = [row for row in rows if row["variant"] == name]
        axes.scatter(
            [float(row["coverage_delta"]) for row in own],
            [float(row["speedup"]) for row in own],
            color=colour,
            label=name,
            alpha=0.8,
        )
    axes.axvline(0, color="#222222", linewidth=1)
    axes.set(xlabel="coverage_delta, points", ylabel="speedup over baseline")
    axes.set_title("a point is a situation: data, barrier, ranks, global batch")
    axes.legend(frameon=False)


def _ms(sequence: int, blocks: int) -> float:
    """Returns what so many blocks of a sequence take."""
    return float(example.BlockTime().attention_ms(example.LENGTHS, blocks)[sequence])


def _raised() -> list[int]:
    """Returns the sequence of every raise that the page's table lists, in its order."""
    names = [line.split("|")[1].strip()[0] for line in example.raises().splitlines()[3:]]
    return [example.NAMES.index(name) for name in names]


if __name__ == "__main__":
    main()
