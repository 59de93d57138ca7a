"""What is left of a training: a Hugging Face directory and a summary of its measured steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from sbcore.config.compute import AttentionConfig
from sbcore.config.stages import TrainStage
from sbcore.device import device_name
from sbcore.errors import SparseBalanceError
from sbcore.model.build import set_default_attention
from sbcore.model.export import export_model
from sbcore.train.sharding import Ranks
from sbcore.types import FloatArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def save_model(
    model: "PreTrainedModel", stage: TrainStage, ranks: Ranks, *, source: Path | None, out: Path
) -> None:
    """Writes the model as a Hugging Face directory that knows the variant's attention."""
    set_default_attention(model, stage.kind, stage.attention)
    export_model(model, out, config=stage.model, source=source, rank=ranks.rank)


def summarise(
    rows: Sequence[dict[str, Any]], stage: TrainStage, *, device: torch.device
) -> dict[str, Any]:
    """Returns summary.json: medians over the steps after warm-up, and their spread.

    ``loss_first`` and ``loss_final`` are means over the first and the last tenth of the steps.
    """
    measured = [row for row in rows if row["measured"]]
    if not measured:
        raise SparseBalanceError(
            f"train.warmup_steps_unmeasured = {stage.train.warmup_steps_unmeasured}: the run has "
            f"{len(rows)} steps, none is left to measure. use fewer or run more steps."
        )
    step_ms = np.array([row["step_ms"] for row in measured])
    losses = [row["loss"] for row in rows]
    tenth = max(len(rows) // 10, 1)
    return {
        "variant": stage.variant,
        "num_steps": len(rows),
        "num_measured_steps": len(measured),
        "num_tokens": sum(row["num_tokens"] for row in rows),
        "loss_first": float(np.mean(losses[:tenth])),
        "loss_final": float(np.mean(losses[-tenth:])),
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
        "device": device_name(device),
        "backend": backend_name(stage.kind, stage.attention, device.type),
        "num_ranks": stage.topology.num_ranks,
        "barrier": str(stage.topology.barrier),
    }


def closing_line(summary: dict[str, Any]) -> str:
    """Returns what the terminal says at the end."""
    return (
        f"train {summary['variant']}: {summary['num_steps']} steps, "
        f"{summary['step_time_ms']['median']:.0f} ms per step (median), "
        f"loss {summary['loss_first']:.3f} -> {summary['loss_final']:.3f}"
    )


def backend_name(
    kind: Literal["sparse", "dense"], attention: AttentionConfig, device_type: str
) -> str:
    """Returns the attention that really runs."""
    if kind == "dense":
        return "sdpa"
    automatic = "triton" if device_type == "cuda" else "torch"
    return automatic if attention.backend == "auto" else attention.backend


def _waiting_pct(rows: Sequence[dict[str, Any]], step_ms: FloatArray) -> float:
    """Returns the share of all ranks' time that they stood in collectives, per cent."""
    waiting = np.array([np.mean(row["waiting_ms"]) for row in rows])
    return 100 * float(waiting.sum() / step_ms.sum())


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return float(np.mean(values)) if values else None


def _share(rows: Sequence[dict[str, Any]], keys: tuple[str, ...], step_ms: FloatArray) -> float:
    return 100 * float(sum(row[key] for row in rows for key in keys) / step_ms.sum())
