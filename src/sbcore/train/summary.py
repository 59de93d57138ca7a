"""What a training says of itself when it is over: medians of its measured steps."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from sbcore.config.compute import AttentionConfig
from sbcore.config.stages import TrainStage
from sbcore.device import device_name
from sbcore.train.flops import peak_flops
from sbcore.types import FloatArray


def summarise(
    rows: Sequence[dict[str, Any]], stage: TrainStage, *, device: torch.device
) -> dict[str, Any]:
    """Returns summary.json: medians over the steps after warm-up, and their spread.

    ``loss_first`` and ``loss_final`` are means over the first and the last tenth of the steps,
    skipped ones left out.
    """
    measured = [row for row in rows if row["measured"]]
    step_ms = np.array([row["step_ms"] for row in measured])
    tenth, name = max(len(rows) // 10, 1), device_name(device)
    return {
        "variant": stage.variant,
        "num_steps": len(rows),
        "num_measured_steps": len(measured),
        "num_tokens": sum(row["num_tokens"] for row in rows),
        "num_skipped_steps": sum(row["grad_norm"] is None for row in rows),
        "loss_first": _mean(rows[:tenth], "loss"),
        "loss_final": _mean(rows[-tenth:], "loss"),
        "step_time_ms": {
            "median": float(np.median(step_ms)),
            "p20": float(np.percentile(step_ms, 20)),
            "p80": float(np.percentile(step_ms, 80)),
        },
        "tokens_per_s": 1e3 * sum(row["num_tokens"] for row in measured) / float(step_ms.sum()),
        "imbalance": _mean(measured, "imbalance"),
        "predicted_imbalance": _mean(measured, "predicted_imbalance"),
        "predicted_ms": float(np.median([row["predicted_ms"] for row in measured])),
        "coverage_delta": _mean(measured, "coverage_delta"),
        "overhead_pct": _share(measured, ("tune_ms", "plan_ms"), step_ms),
        "waiting_pct": _waiting_pct(measured, step_ms),
        **_shares_of_peak(measured, step_ms, name, num_ranks=stage.topology.num_ranks),
        "device": name,
        "backend": backend_name(stage.kind, stage.attention, device.type),
        "num_ranks": stage.topology.num_ranks,
        "barrier": str(stage.topology.barrier),
    }


def closing_line(summary: dict[str, Any]) -> str:
    """Returns what the terminal says at the end."""
    return (
        f"train {summary['variant']}: {summary['num_steps']} steps, "
        f"{summary['step_time_ms']['median']:.0f} ms per step (median), "
        f"loss {_shown(summary['loss_first'])} -> {_shown(summary['loss_final'])}"
    )


def _shown(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.3f}"


def backend_name(
    kind: Literal["sparse", "dense"], attention: AttentionConfig, device_type: str
) -> str:
    """Returns the attention that really runs."""
    if kind == "dense":
        return "sdpa"
    automatic = "triton" if device_type == "cuda" else "torch"
    return automatic if attention.backend == "auto" else attention.backend


def _shares_of_peak(
    rows: Sequence[dict[str, Any]], step_ms: FloatArray, device: str, *, num_ranks: int
) -> dict[str, float | None]:
    """Returns MFU by useful and by dense-equivalent work, and HFU, 0..1; None without a peak."""
    names = {"mfu_useful": "useful", "mfu_dense_equivalent": "dense_equivalent", "hfu": "executed"}
    peak = peak_flops(device)
    if peak is None:
        return dict.fromkeys(names)
    could = peak * num_ranks * float(step_ms.sum()) / 1e3
    return {
        name: 1e12 * sum(row[f"{work}_tflop"] for row in rows) / could
        for name, work in names.items()
    }


def _waiting_pct(rows: Sequence[dict[str, Any]], step_ms: FloatArray) -> float:
    """Returns the share of all ranks' time that they stood in collectives, per cent."""
    waiting = np.array([np.mean(row["waiting_ms"]) for row in rows])
    return 100 * float(waiting.sum() / step_ms.sum())


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return float(np.mean(values)) if values else None


def _share(rows: Sequence[dict[str, Any]], keys: tuple[str, ...], step_ms: FloatArray) -> float:
    """Returns the share of the step of these parts, each on the rank that it took longest."""
    return 100 * float(sum(np.max(row[key]) for row in rows for key in keys) / step_ms.sum())
