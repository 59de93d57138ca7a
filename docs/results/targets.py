"""The table of targets.md: what was aimed at on two GPUs, and what the comparison measured.

``PYTHONPATH=src python docs/results/targets.py``, after ablation.py.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ablation
import numpy as np
import tables

from sbcore.ablation.collect import AND
from sbcore.ablation.ratios import paired_speedup
from sbcore.ablation.results import read_rows
from sbcore.ablation.table import COLUMNS, Place, variant_row

HERE = Path(__file__).parent
PAGE = HERE / "targets.md"
CSV = HERE / "ablation-2xh100.csv"

Value = Callable[[Place, ablation.Steps], float | None]


@dataclass(frozen=True)
class Target:
    """A measure with the least that is asked for and what is aimed at."""

    name: str
    must: float
    aim: float | None
    value: Value
    digits: int
    more_is_better: bool

    def cell(self, place: Place, steps: ablation.Steps) -> str:
        """Returns `1.91, aim`, `1.30, must` or `1.11, missed`; a dash where it does not apply."""
        value = self.value(place, steps)
        if value is None:
            return "-"
        return f"{value:.{self.digits}f}, {self.verdict(value)}"

    def verdict(self, value: float) -> str:
        """Returns what the measured number meets, as it is, not as it is rounded."""
        sign = 1 if self.more_is_better else -1
        if self.aim is not None and sign * value >= sign * self.aim:
            return "aim"
        return "must" if sign * value >= sign * self.must else "**missed**"


def over(variant: str, other: str) -> Value:
    """Returns the median speedup in rounds."""

    def value(_: Place, steps: ablation.Steps) -> float | None:
        found = paired_speedup(steps[variant], steps[other])
        return found.median if found else None

    return value


def column(variant: str, name: str) -> Value:
    """Returns a column of the csv."""
    return lambda place, steps: float(variant_row(place, variant, steps[variant])[name])


def worst_prediction(_: Place, steps: ablation.Steps) -> float:
    """Returns the greatest distance of a variant's median step from its prediction, in percent."""
    medians = [np.median([s.step_ms / s.predicted_ms for s in found]) for found in steps.values()]
    return max(100 * abs(float(median) - 1) for median in medians)


def mfu(which: int) -> Value:
    """Returns the share of the peak in percent for the 3B shape: useful, or dense-equivalent."""

    def value(place: Place, steps: ablation.Steps) -> float | None:
        if not place.shape.endswith("3B"):
            return None
        return float(list(ablation.shares_of_peak(place, steps["sab_dst"]))[which])

    return value


def host_floor(place: Place, _: ablation.Steps) -> float | None:
    """Returns the longest that a start of this setting measured, in milliseconds; 0.5B only."""
    if not place.shape.endswith("0.5B"):
        return None
    starts = json.loads(CSV.with_name(f"{CSV.stem}-manifest.json").read_text())["starts"]
    where = (place.shape, place.lengths, place.barrier, str(place.global_batch))
    names = ("shape", "lengths", "barrier", "global_batch")
    rows = [row for row in read_rows(CSV, COLUMNS) if tuple(row[n] for n in names) == where]
    run_ids = {run_id for row in rows for run_id in row["run_id"].split(AND)}
    return max(float(starts[run_id][f"host_floor_ms.{place.barrier}"]) for run_id in run_ids)


TARGETS = (
    Target("`sab_dst` over `baseline`", 1.5, 1.75, over("sab_dst", "baseline"), 2, True),
    Target("over `baseline_packed`", 1.25, 1.35, over("sab_dst", "baseline_packed"), 2, True),
    Target("over `dense`", 1.3, 2, over("sab_dst", "dense"), 2, True),
    Target(
        "`sab_waterfill` over `baseline_packed`",
        *(1.25, 1.4, over("sab_waterfill", "baseline_packed"), 2, True),
    ),
    Target(
        "its coverage_delta, points", 0, None, column("sab_waterfill", "coverage_delta"), 2, True
    ),
    Target("imbalance of `sab_dst`", 1.15, 1.05, column("sab_dst", "imbalance"), 2, False),
    Target("waiting of `sab_dst`, %", 8, 3, column("sab_dst", "waiting_pct"), 1, False),
    Target("worst prediction of nine variants, %", 10, 5, worst_prediction, 1, False),
    Target("useful MFU of `sab_dst`, %", 35, 50, mfu(0), 1, True),
    Target("dense-equivalent MFU, %", 35, 50, mfu(1), 1, True),
    Target("host floor, ms", 90, 40, host_floor, 0, False),
)


def reached() -> str:
    """Returns a row for each target, a column for each setting."""
    settings = ablation.read_comparison(CSV)
    head = ["", "must", "aim", *(short(place, steps) for place, steps in settings.items())]
    return tables.markdown(head, [list(line(target, settings.items())) for target in TARGETS])


def line(target: Target, settings: Sequence[tuple[Place, ablation.Steps]]) -> list[str]:
    """Returns the cells of a target."""
    aim = "-" if target.aim is None else f"{target.aim:g}"
    cells = [target.cell(place, steps) for place, steps in settings]
    return [target.name, f"{target.must:g}", aim, *cells]


def short(place: Place, steps: ablation.Steps) -> str:
    """Returns a setting in few words."""
    shape, lengths = place.shape.partition("-")[2], place.lengths.removesuffix("-conversation")
    rounds = len(steps["sab_dst"])
    return f"{shape}, {lengths}, `{place.barrier}`, {place.global_batch}, {rounds} rounds"


def filled(page: str) -> str:
    """Returns the page with its table made anew."""
    return tables.with_blocks(page, {"reached": reached})


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
