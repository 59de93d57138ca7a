"""The tables of reach.md, from reach.csv: ``python docs/results/reach_page.py``."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import tables

ROWS = Path(__file__).with_name("reach.csv")
PAGE = Path(__file__).with_name("reach.md")
AIM, WAITING = 1.1, 8.0
"""Imbalance, and percent of rank time."""
PLAIN = (0.1, 1)
"""The p and look-ahead that others are compared with, first of each number of ranks and batch."""

Cells = dict[str, str]


def write() -> None:
    """Makes the tables anew."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def filled(page: str) -> str:
    """Returns the page with its tables made anew from reach.csv."""
    with ROWS.open(newline="", encoding="utf-8") as file:
        rows = with_gains(list(csv.DictReader(file)))
    blocks: dict[str, Callable[[], str]] = {
        "in reach": partial(in_reach, rows),
        "help": partial(help_for, rows, "8", "16"),
        "all": partial(everything, rows),
    }
    return tables.with_blocks(page, blocks)


def with_gains(rows: list[Cells]) -> list[Cells]:
    """Returns the rows with `gain`: how much faster than `sab` on batches as drawn."""
    sab_ms = 0.0
    for row in rows:
        if (float(row["p"]), int(row["look_ahead"])) == PLAIN:
            sab_ms = float(row["sab_ms"])
        row["gain"] = f"{sab_ms / float(row['waterfill_ms']):.2f}"
        row["table"] = row["latency"].split(",")[0]
    return rows


def in_reach(rows: list[Cells]) -> str:
    """Returns where the aim can be met with the first pair, and where it is."""
    head = ["table", "ranks", "global batch", "least imbalance", "reached", "waiting, %"]
    head += ["steps that can be within 1.10, %", "the aim is"]
    lines = [
        [row["table"], row["num_ranks"], row["global_batch"]]
        + [f"{float(row[key]):.2f}" for key in ("least_imbalance", "waterfill_imbalance")]
        + [row["waterfill_waiting_pct"], percent(row["steps_within_aim"]), verdict(row)]
        for row in rows
        if (float(row["p"]), int(row["look_ahead"])) == PLAIN
    ]
    return tables.markdown(head, lines)


def verdict(row: Cells) -> str:
    """Returns whether a row meets the aim, could, or can not."""
    if float(row["waterfill_imbalance"]) <= AIM and float(row["waterfill_waiting_pct"]) <= WAITING:
        return "met"
    return "missed" if float(row["least_imbalance"]) <= AIM else "**out of reach**"


def help_for(rows: list[Cells], ranks: str, batch: str) -> str:
    """Returns what p, look-ahead and larger batches bring at so many ranks, from this batch on."""
    head = ["table", "global batch", "p", "look-ahead", "least imbalance", "reached"]
    head += ["waiting, %", "faster than `sab` of that batch", "coverage_delta"]
    lines = [
        [row["table"], row["global_batch"], row["p"], row["look_ahead"]]
        + [f"{float(row[key]):.2f}" for key in ("least_imbalance", "waterfill_imbalance")]
        + [row["waterfill_waiting_pct"], row["gain"], f"{float(row['coverage_delta']):+.1f}"]
        for row in rows
        if row["num_ranks"] == ranks and int(batch) <= int(row["global_batch"]) <= 4 * int(batch)
    ]
    return tables.markdown(head, lines)


def everything(rows: list[Cells]) -> str:
    """Returns all rows."""
    head = ["table", "ranks", "global batch", "p", "look-ahead", "longest binds, % of steps"]
    head += ["least imbalance at k0", "least within p", "imbalance: `sab`", "`sab_waterfill`"]
    head += ["waiting, %", "faster than `sab`", "coverage_delta"]
    least, reached = ("least_imbalance_at_k0", "least_imbalance"), ("sab", "waterfill")
    lines = [
        [row["table"], row["num_ranks"], row["global_batch"], row["p"], row["look_ahead"]]
        + [percent(row["longest_binds"]), *(f"{float(row[key]):.2f}" for key in least)]
        + [f"{float(row[f'{name}_imbalance']):.2f}" for name in reached]
        + [row["waterfill_waiting_pct"], row["gain"], f"{float(row['coverage_delta']):+.1f}"]
        for row in rows
    ]
    return tables.markdown(head, lines)


def percent(share: str) -> str:
    """Returns a share as whole percent."""
    return f"{100 * float(share):.0f}"


if __name__ == "__main__":
    write()
