"""The description of the pipeline's run: what MLflow shows before anything is clicked."""

from collections.abc import Mapping, Sequence
from typing import Any

_COLUMNS = (
    ("speedup", "speedup", "{:.2f}"),
    ("step_time_ms.median", "step, ms", "{:,.0f}"),
    ("imbalance", "imbalance", "{:.2f}"),
    ("coverage_delta", "coverage_delta, points", "{:+.2f}"),
    ("loss_final", "final loss", "{:.3f}"),
    ("score_mean", "mean score", "{:.1f}"),
)
"""Key of the report's summary, heading, format."""


def describe_run(rows: Sequence[Mapping[str, Any]], *, compare_page: str, report: str) -> str:
    """Returns markdown: the variants in a table, and where the rest is."""
    head = ["variant", *(heading for _, heading, _ in _COLUMNS)]
    lines = [head, ["---", *["---:"] * len(_COLUMNS)]]
    lines += [
        [row["variant"], *(_cell(row, key, form) for key, _, form in _COLUMNS)] for row in rows
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n[Variants side by side]({compare_page.lstrip('/')})\n\nReport: `{report}`\n"


def _cell(row: Mapping[str, Any], key: str, form: str) -> str:
    outer, _, inner = key.partition(".")
    value = row.get(outer)
    if inner and value is not None:
        value = value[inner]
    return "-" if value is None else form.format(value)
