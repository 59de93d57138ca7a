"""A comparison as a table that says what it rests on, or as one json object."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sbcore.simulate.run import VariantResult
from sbcore.simulate.setting import Setting


def to_json(results: Sequence[VariantResult]) -> str:
    """Returns `{"variants": [...]}`."""
    return json.dumps({"variants": [asdict(result) for result in results]}, indent=2)


def describe(setting: Setting) -> list[str]:
    """Returns what the numbers rest on, a sentence per line."""
    return [
        f"simulated, not measured: {setting.num_steps} steps of {setting.global_batch} sequences "
        f"on {setting.num_ranks} ranks, barrier {setting.barrier}, top_k {setting.config.top_k} "
        f"of {setting.block_size} tokens",
        f"latency: {setting.latency_name}",
        f"coverage by law: {setting.config.coverage.sentence}",
    ]


def print_table(setting: Setting, results: Sequence[VariantResult]) -> None:
    """Writes the table and what it rests on to stdout."""
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("variant", no_wrap=True)
    headings = ("speedup", "imbalance", "gap, %", "coverage_delta, points", "bubble, %")
    for heading in headings:
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(
            result.variant,
            f"{result.speedup:.3f}",
            f"{result.imbalance:.3f}",
            f"{100 * result.gap:.1f}",
            f"{result.coverage_delta:+.1f}",
            f"{100 * result.bubble:.1f}",
        )
    console = Console(soft_wrap=True)
    for line in describe(setting):
        console.print(line, highlight=False, markup=False)
    Console().print(table)
