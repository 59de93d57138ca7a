"""A comparison as a table that says what it rests on, or as one json object."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sbcore.plan.sampling import describe_sampling
from sbcore.simulate.run import VariantResult
from sbcore.simulate.setting import Setting
from sbcore.types import Barrier


def to_json(results: Sequence[VariantResult]) -> str:
    """Returns `{"variants": [...]}`."""
    return json.dumps({"variants": [asdict(result) for result in results]}, indent=2)


def describe(setting: Setting) -> list[str]:
    """Returns what the numbers rest on, a sentence per line."""
    ranks = f"{setting.num_ranks} ranks"
    if setting.num_stages > 1:
        ranks += f" of {setting.num_stages} pipeline stages (1F1B)"
    lines = [
        f"simulated, not measured: {setting.num_steps} steps of {setting.global_batch} sequences "
        f"on {ranks}, barrier {setting.barrier}, top_k {setting.config.top_k} "
        f"of {setting.block_size} tokens, micro-batches up to {setting.config.max_tokens} tokens",
        f"latency: {setting.latency_name}",
        f"coverage by law: {setting.config.coverage.sentence}",
    ]
    lines += notes(setting)
    if setting.config.look_ahead > 1:
        lines.append(f"global batches: {describe_sampling(setting.sampling)}")
    slow = [f"rank {r} x {f:g}" for r, f in enumerate(setting.speed_factors) if f != 1.0]
    return lines + ([f"times of {', '.join(slow)}; plans know it"] if slow else [])


def notes(setting: Setting) -> list[str]:
    """Returns what numbers alone would not show, a sentence per line."""
    lines = []
    if setting.num_extrapolated:
        lines.append(
            f"extrapolated: {setting.num_extrapolated} of {len(setting.lengths)} sequences are "
            "longer than the latency table measured"
        )
    if setting.barrier is Barrier.STEP and setting.num_stages > 1:
        lines.append("barrier step of pipelines is barrier pipeline: the same numbers")
    if setting.barrier is Barrier.PIPELINE and setting.num_stages == 1:
        lines.append("barrier pipeline of ranks without stages is barrier step: the same numbers")
    return lines


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
