"""The comparison as a table on the terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sbcore.ablation.ratios import by_variant, paired_speedup
from sbcore.ablation.steps import MeasuredStep
from sbcore.ablation.table import Place, variant_row

_HEADINGS = (
    "steps",
    "ms p50",
    "speedup",
    "p20-p80",
    "tokens/s",
    "imbalance",
    "coverage",
    "overhead %",
    "waiting %",
    "measured/predicted",
)


def print_setting(place: Place, steps: Sequence[MeasuredStep], *, baseline: str) -> None:
    """Writes a row per variant to stdout; speedups are over the baseline, round by round."""
    found = by_variant(steps)
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("variant", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for variant, measured in found.items():
        table.add_row(variant, *_cells(place, variant, measured, found.get(baseline, [])))
    console = Console(width=140)
    console.print(
        f"{place.shape}, {place.lengths}, barrier {place.barrier}, "
        f"global batch {place.global_batch}, {place.device}",
        highlight=False,
        markup=False,
    )
    console.print(table)


def _cells(
    place: Place, variant: str, steps: Sequence[MeasuredStep], base: Sequence[MeasuredStep]
) -> list[str]:
    row, speedup = variant_row(place, variant, steps), paired_speedup(steps, base)
    delta = row["coverage_delta"]
    return [
        str(row["steps"]),
        f"{float(row['step_ms_p50']):.1f}",
        "-" if speedup is None else f"{speedup.median:.3f}",
        "-" if speedup is None else f"{speedup.p20:.2f}-{speedup.p80:.2f}",
        f"{float(row['tokens_per_s']):,.0f}",
        f"{float(row['imbalance']):.3f}",
        "-" if delta == "" else f"{float(delta):+.2f}",
        f"{float(row['overhead_pct']):.2f}",
        f"{float(row['waiting_pct']):.1f}",
        f"{float(row['step_ms_p50']) / float(row['predicted_ms']):.2f}",
    ]
