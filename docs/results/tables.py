"""Writes the generated tables of choosing-a-balancer.md from the csv files beside this script.

Run it after balancers.py and variants.py: ``python docs/results/tables.py``.
"""

import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
PAGE = HERE.parent / "explanation" / "choosing-a-balancer.md"
_END = "<!-- end -->"
_WHERE = ("data", "barrier", "num_ranks", "global_batch")
_WHERE_HEAD = ["data", "barrier", "ranks", "global batch"]
_PLANNED = ("length", "tokens", "tokens_squared", "karmarkar_karp", "multifit", "sab")
_SHOWN = ("baseline_packed", "lbb", "sab", "dst", "lbb_dst", "sab_dst", "sab_waterfill")

Cells = dict[str, str]


def by_situation(name: str, key: str) -> dict[tuple[str, ...], dict[str, Cells]]:
    """Returns the rows of a csv by situation, then by balancer or variant."""
    found: dict[tuple[str, ...], dict[str, Cells]] = {}
    with (HERE / name).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(tuple(row[word] for word in _WHERE), {})[row[key]] = row
    return found


def gaps() -> str:
    """Returns imbalance and gaps of all balancers."""
    head = [*_WHERE_HEAD, "longest binds, % of steps", "imbalance: random", "sab"]
    head += [f"gap, %: {_PLANNED[0]}", *_PLANNED[1:], "sab, p95", "sab, p95 where none binds"]
    lines = []
    for where, rows in by_situation("balancers.csv", "balancer").items():
        sab = rows["sab"]
        uneven = [f"{float(rows[name]['imbalance']):.2f}" for name in ("random", "sab")]
        means = [percent(rows[name]["gap_mean"]) for name in _PLANNED]
        tails = [percent(sab["gap_p95"]), percent(sab["gap_p95_unbound"])]
        lines.append([*where, f"{100 * float(sab['longest_binds']):.0f}", *uneven, *means, *tails])
    return markdown(head, lines)


def plan_times() -> str:
    """Returns the milliseconds of a plan, the median over length sets and barriers.

    Pipelines are apart: timing one layout takes long there.
    """
    times: dict[tuple[str, str], dict[str, list[float]]] = {}
    for (_, barrier, ranks, batch), rows in by_situation("balancers.csv", "balancer").items():
        stages = ", 4 stages" if barrier == "pipeline" else ""
        for name, row in rows.items():
            of_size = times.setdefault((f"{ranks}{stages}", batch), {})
            of_size.setdefault(name, []).append(float(row["plan_ms"]))
    names = ["random", *_PLANNED]
    lines = [
        [*size, *(f"{median(found[name]):.2f}" for name in names)] for size, found in times.items()
    ]
    return markdown(["ranks", "global batch", *names], lines)


def speedups() -> str:
    """Returns the speedups of variants over the baseline, with coverage where it changes."""
    lines = []
    for where, rows in by_situation("variants.csv", "variant").items():
        lines.append([*where, *(speedup(rows[name]) for name in _SHOWN)])
    return markdown([*_WHERE_HEAD, *_SHOWN], lines)


def speedup(row: Cells) -> str:
    """Returns `1.52 (-0.6)`: speedup, and coverage_delta in points where it is not 0."""
    delta = round(float(row["coverage_delta"]), 1) + 0.0
    tuned = "dst" in row["variant"] or "waterfill" in row["variant"]
    return f"{float(row['speedup']):.2f}" + (f" ({delta:+.1f})" if tuned else "")


def percent(share: str) -> str:
    """Returns a share as percent, a dash where there is none."""
    return f"{100 * float(share):.1f}" if share else "-"


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """Returns a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


BLOCKS: dict[str, Callable[[], str]] = {
    "gaps": gaps,
    "plan times": plan_times,
    "speedups": speedups,
}


def filled(page: str) -> str:
    """Returns the page with all its tables made anew; raises KeyError for an unknown one."""
    return with_blocks(page, BLOCKS)


def with_blocks(page: str, blocks: Mapping[str, Callable[[], str]]) -> str:
    """Returns a page with each of its generated blocks made anew."""

    def block(match: re.Match[str]) -> str:
        return f"{match[0].splitlines()[0]}\n{blocks[match[1]]()}\n{_END}"

    return re.sub(rf"<!-- generated: (.+?) -->\n.*?{_END}", block, page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
