"""The tables of predictions.md, from the csv files beside it.

Run it after ablation_simulated.py and ablation_predicted.py:
``python docs/results/predictions_page.py``.
"""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import tables

HERE = Path(__file__).parent
PAGE = HERE / "predictions.md"
SHAPES = ("0.5b", "3b")
SHOWN = ("dense", "baseline_packed", "lbb", "sab", "dst", "sab_dst", "sab_waterfill")

Cells = dict[str, str]


def rows_of(name: str) -> list[Cells]:
    """Returns the rows of a csv."""
    with (HERE / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def measured(machine: str) -> str:
    """Returns measured steps over predicted and simulated ones, of one machine."""
    head = ["shape", "lengths", "barrier", "batch", "variant", "rounds", "measured, ms"]
    head += ["over predicted", "over simulated", "speedup over `baseline`", "simulated"]
    lines = [
        [
            shape_of(row),
            row["lengths"].removesuffix("-conversation"),
            row["barrier"],
            row["global_batch"],
            f"`{row['variant']}`",
            row["num_rounds"],
            f"{float(row['measured_ms']):,.0f}",
            two(row["measured_over_predicted"]),
            f"{two(row['measured_over_simulated'])} {spread(row)}",
            two(row["measured_speedup"]),
            two(row["simulated_speedup"]),
        ]
        for row in rows_of("ablation-simulated.csv")
        if row["device"].startswith(machine)
    ]
    return tables.markdown(head, lines)


def machines(shape: str) -> str:
    """Returns simulated speedups on one host of 4 or 8, over `baseline`, then `baseline_packed`."""
    by_machine: dict[tuple[str, ...], dict[str, Cells]] = {}
    for row in rows_of("ablation-dp8-predicted.csv"):
        if shape_of(row) == shape:
            where = (row["barrier"], row["num_ranks"], row["global_batch"])
            by_machine.setdefault(where, {})[row["variant"]] = row
    lines = [
        [*where, *(speedups(found[name]) for name in SHOWN), imbalance(found["sab_waterfill"])]
        for where, found in by_machine.items()
    ]
    head = ["barrier", "ranks", "global batch", *(f"`{name}`" for name in SHOWN)]
    return tables.markdown([*head, "imbalance, waiting of the last"], lines)


def shape_of(row: Cells) -> str:
    """Returns the shape whose table was used."""
    return next(shape for shape in SHAPES if f"-{shape}," in row["latency"])


def spread(row: Cells) -> str:
    """Returns `(1.02-1.04)`: the 20th and 80th percentile of measured over simulated."""
    return f"({two(row['ratio_p20'])}-{two(row['ratio_p80'])})"


def speedups(row: Cells) -> str:
    """Returns `2.64 / 1.78`: over baseline, and over packed random order."""
    return f"{two(row['simulated_speedup'])} / {two(row['simulated_speedup_over_packed'])}"


def imbalance(row: Cells) -> str:
    """Returns `1.12, 10 %`."""
    waiting = float(row["simulated_waiting_pct"])
    return f"{two(row['simulated_imbalance'])}, {waiting:.0f} %"


def two(value: str) -> str:
    """Returns a number with two digits behind the point."""
    return f"{float(value):.2f}"


BLOCKS: dict[str, Callable[[], str]] = {
    "two": partial(measured, "2 x"),
    "eight": partial(measured, "8 x"),
    **{f"machines {shape}": partial(machines, shape) for shape in SHAPES},
}


def filled(page: str) -> str:
    """Returns the page with its tables made anew."""
    return tables.with_blocks(page, BLOCKS)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
