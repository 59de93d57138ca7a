"""Losses, coverage_delta and seconds of the evidence's trainings, a row per run."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sbcore.artifacts import read_json, replace_when_done


def write_runs(out: Path, table: Path) -> None:
    """Writes the rows of all finished runs under ``out``, beside the table: ``-runs.csv``."""
    runs = [run_row(path.parent) for path in sorted(out.glob("seed*/*/metrics.json"))]
    write_rows(table.with_name(f"{table.stem}-runs.csv"), tuple(runs[0]), runs)


def run_row(folder: Path) -> dict[str, Any]:
    """Returns a run's losses (means of ten steps), coverage_delta and seconds."""
    metrics = read_json(folder / "metrics.json")
    losses = [step["loss"] for step in metrics["steps"]]
    deltas = [d for step in metrics["steps"] if (d := step["coverage_delta"]) is not None]
    return {
        "variant": folder.name,
        "seed": metrics["seed"],
        "num_steps": len(losses),
        "loss_first": _mean(losses[:10]),
        "loss_final": _mean(losses[-10:]),
        "loss_mean": _mean(losses),
        "coverage_delta": _mean(deltas),
        "coverage_delta_min": round(min(deltas), 2) if deltas else None,
        "coverage_delta_max": round(max(deltas), 2) if deltas else None,
        **{f"{name}_s": _seconds(took) for name, took in metrics["seconds"].items()},
    }


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Writes a csv file, whole or not at all."""
    with replace_when_done(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def _seconds(took: float | None) -> float | None:
    """Returns rounded seconds; None is what was not timed from its beginning."""
    return None if took is None else round(took, 1)
