"""A small run as its stages would leave it: simulated, with known properties."""

import json
from pathlib import Path

import numpy as np
import polars as pl

from sbcore.config.stages import ReportStage
from sbcore.report.collect import collect
from sbcore.report.compare import compare
from sbcore.report.doubts import doubts
from sbcore.types import Barrier

NUM_STEPS, NUM_RANKS, NUM_LAYERS, BLOCK_SIZE, TOP_K = 40, 2, 2, 32, 8
FACTORS = {"baseline": 1.0, "sab": 0.8, "sab_dst": 0.7, "dense": 1.3}
"""Exact step time of each variant relative to the baseline's, in every step."""


def report_stage(variants=tuple(FACTORS)):
    return ReportStage(
        evaluated=True,
        run="fabricated",
        baseline=variants[0],
        variants=list(variants),
        barrier=Barrier.STEP,
    )


def found_doubts(run_dir):
    """Returns what the report says against a run."""
    record = collect(report_stage(), run_dir)
    return doubts(record, compare(record))


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_manifest(path: Path, stage: str, **changes: object) -> None:
    manifest = {
        "stage": stage,
        "command": ["sb", stage],
        "config_digest": "c" * 64,
        "inputs": {"index": "1" * 64},
        "commit": "a" * 40,
        "dirty": False,
        "packages": {"torch": "2.13.0", "python": "3.11.7"},
        "device": "cpu",
        "backend": "torch",
        "seconds": 12.5,
        "mlflow_run_id": None,
    }
    write(path, manifest | changes)


def write_variant(folder: Path, factor: float) -> None:
    generator = np.random.default_rng(5)  # the same global batches for every variant
    metrics, spans, ledger = [], [], []
    for step in range(NUM_STEPS):
        lengths = np.clip(generator.lognormal(5.8, 1.1, 16), 64, 4096).astype(int)
        base = float(lengths.sum()) / 20
        step_ms = factor * base
        lean = 0.6 if factor >= 1 else 0.54
        share = np.array([lean, 1 - lean])
        compute = 0.9 * step_ms * share / share.max()
        tuned = folder.name == "sab_dst"
        for rank in range(NUM_RANKS):
            parts = np.array([0.5, 0.3, 0.2]) * compute[rank]
            start = 5.0
            for m, part in enumerate(parts):
                last = m == len(parts) - 1
                waiting = float(compute.max() - compute[rank]) if last else 0.0
                tokens = int(lengths[rank::2].sum() * parts[m] / parts.sum())
                at_k0 = 0.95 * part * (1.2 if tuned and rank == 0 else 1.0)
                spans.append((step, rank, m, tokens, 3, start, part, waiting, 0.95 * part, at_k0))
                start += part
        measured = step % 5 == 0 or tuned
        for layer in range(NUM_LAYERS):
            for i, length in enumerate(lengths):
                blocks = -(-int(length) // BLOCK_SIZE)
                shift = int(generator.integers(-3, 4)) - 2 * layer + (3 if length < 900 else -2)
                target = TOP_K + shift if tuned else (blocks if factor > 1 else TOP_K)
                used = max(1, min(target + (1 if tuned and layer else 0), blocks))
                c0, c = 1 - 0.5 / min(TOP_K, blocks), 1 - 0.5 / used
                row = (step, i % 2, 0, layer, i, int(length), max(1, target), used)
                ledger.append((*row, c0 if measured else None, c if measured else None, 1.0))
        metrics.append(
            {
                "step": step,
                "loss": 6.0 * 0.96**step + 0.5 + 0.2 * float(generator.random()),
                "num_tokens": int(lengths.sum()),
                "num_target_tokens": 400,
                "step_ms": step_ms,
                "predicted_ms": 0.9 * step_ms,
                "imbalance": float(compute.max() / compute.mean()),
                "predicted_imbalance": 1.05,
                "compute_ms": compute.tolist(),
                "waiting_ms": (compute.max() - compute).tolist(),
                "data_ms": [3.0, 1.0],
                "plan_ms": [0.0, 0.0],
                "tune_ms": [2.0, 1.5] if tuned else [0.0, 0.0],
                "gap_ms": [5.5, 3.0],
                "optimizer_ms": [4.0, 4.5],
                "checkpoint_ms": [0.5, 0.75],
                "coverage_delta": -0.1 if tuned else (0.0 if measured else None),
                "expected_coverage_delta": 0.1 if tuned and step else None,
                "grad_norm": 1.0,
                "learning_rate": 1e-3,
                "measured": step >= 3,
            }
        )
    train = folder / "train"
    train.mkdir(parents=True)
    (train / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    names = "step rank micro_batch num_tokens num_sequences start_ms compute_ms waiting_ms"
    schema = [*names.split(), "predicted_ms", "predicted_k0_ms"]
    pl.DataFrame(spans, schema=schema, orient="row").write_parquet(train / "micro_batches.parquet")
    names = "step rank micro_batch layer sample_id num_tokens top_k_target top_k coverage_k0"
    schema = [*names.split(), "coverage", "predicted_ms"]
    table = pl.DataFrame(ledger, schema=schema, orient="row", infer_schema_length=None)
    floats = [pl.col(name).cast(pl.Float64).fill_null(np.nan) for name in schema[-3:]]
    table.with_columns(floats).write_parquet(train / "ledger.parquet")
    write_curves(train / "coverage.parquet")
    times = np.array([row["step_ms"] for row in metrics[3:]])
    median, p20, p80 = np.percentile(times, [50, 20, 80])
    write(
        train / "summary.json",
        {
            "variant": folder.name,
            "num_steps": NUM_STEPS,
            "num_tokens": sum(row["num_tokens"] for row in metrics),
            "loss_final": float(np.mean([row["loss"] for row in metrics[-4:]])),
            "step_time_ms": {"median": median, "p20": p20, "p80": p80},
            "tokens_per_s": 20_000 / factor,
            "imbalance": metrics[0]["imbalance"],
            "predicted_imbalance": 1.05,
            "coverage_delta": None if factor > 1 else (-0.1 if tuned else 0.0),
            "overhead_pct": 1.4 if tuned else 0.2,
            "waiting_pct": 100 * (1 - compute.mean() / compute.max()),
            "device": "cpu",
            "backend": "torch",
            "num_ranks": NUM_RANKS,
            "barrier": "step",
        },
    )
    write(folder / "plan" / "summary.json", {"overall": PLAN})
    scores = {"recall": 91.67, "multi_value": 45.83, "needle": 70.0, "few_shot": 52.1}
    scores = {name: round(x - 3 * (factor == 0.7), 2) for name, x in scores.items()}
    write(
        folder / "eval" / "result.json",
        {
            "scores": scores,
            "score_mean": round(sum(scores.values()) / len(scores), 2),
            "example_scores": {name: example_scores(x) for name, x in scores.items()},
            "categories": dict.fromkeys(scores, "retrieval") | {"few_shot": "few_shot"},
            "chance": {"recall": 12.5, "multi_value": 12.5, "few_shot": 25.0},
            "num_examples": dict.fromkeys(scores, 24),
            "num_available": dict.fromkeys(scores, 24),
            "partial": False,
        },
    )
    for stage in ("plan", "train", "eval"):
        write_manifest(folder / stage / "manifest.json", stage)


def example_scores(score: float) -> list[float]:
    """24 examples, all right, all wrong or in between, of this mean."""
    right = int(24 * score / 100)
    return [100.0] * right + [24 * score - 100 * right] + [0.0] * (23 - right)


def write_curves(path: Path) -> None:
    budgets = np.array([1, 2, 4, 8, 16, 32, 64, 128])
    rows = [
        (layer, length, int(k), float(1 - np.exp(-k / (4 + 3 * layer + length / 400))), 120)
        for layer in range(NUM_LAYERS)
        for length in (128, 256, 512, 1024, 2048, 4096)
        for k in budgets
    ]
    names = ["layer", "max_tokens", "top_k", "coverage", "count"]
    pl.DataFrame(rows, schema=names, orient="row").write_parquet(path)


PLAN = {"optimality_gap": 0.031, "extrapolated": 0}


def times(length: int, top_k: float) -> tuple[float, float, float]:
    """Median, p20, p80 of a simulated latency."""
    ms = 0.05 + 1e-4 * length * (1 + min(top_k, length / BLOCK_SIZE))
    return ms, 0.95 * ms, 1.08 * ms


def write_profiles(folder: Path) -> None:
    edges = [64, 128, 256, 512, 1024, 2048, 4096]
    counts, shares = [80, 260, 400, 420, 300, 140], [0.01, 0.06, 0.17, 0.25, 0.29, 0.22]
    buckets = [
        {"low": low, "high": high, "count": n, "token_share": share}
        for low, high, n, share in zip(edges[:-1], edges[1:], counts, shares, strict=True)
    ]
    write(folder / "lengths.json", {"count": 1600, "mean": 561.2, "max": 4096, "buckets": buckets})
    rows = []
    for length in edges:
        for top_k in (1, 2, 4, 8, 16, 32):
            if top_k < length / BLOCK_SIZE:
                rows.append(("attention", length, top_k, 1, *times(length, top_k), 5, False))
        rows.append(("attention", length, length // BLOCK_SIZE, 1, *times(length, 1e9), 5, False))
    rows.append(("attention", 64, 2, 16, *times(64, 2), 5, False))  # packed
    rows.append(("attention", 96, 3, 1, *times(96, 3), 5, True))
    rows.append(("linear", 64, 0, 1, *times(64, 0), 5, False))
    names = [
        "part",
        "length",
        "top_k",
        "num_sequences",
        "median_ms",
        "p20_ms",
        "p80_ms",
        "n",
        "held_out",
    ]
    pl.DataFrame(rows, schema=names, orient="row").write_parquet(folder / "latency.parquet")
    head = {
        "device": "cpu",
        "block_size": BLOCK_SIZE,
        "floor_ms": 0.5,
        "constant_ms": 1.5,
        "error": {"mape": 0.043, "rank_correlation": 0.997, "regret": 0.012},
    }
    write(folder / "latency.json", head)
    for name in ("lengths", "latency"):
        write_manifest(folder / f"{name}.manifest.json", f"profile-{name}")


def make_run(folder: Path) -> Path:
    """Writes the run, returns its folder."""
    for name, factor in FACTORS.items():
        write_variant(folder / "variants" / name, factor)
    write_profiles(folder / "profile")
    write_manifest(folder / "data" / "manifest.json", "prepare")
    return folder
