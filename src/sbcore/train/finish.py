"""What is left of a training: a Hugging Face directory and a summary of its measured steps."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from sbcore.config.compute import AttentionConfig
from sbcore.config.stages import TrainStage
from sbcore.device import device_name
from sbcore.errors import SparseBalanceError
from sbcore.model.build import build_model, set_default_attention
from sbcore.train.sharding import Ranks
from sbcore.types import FloatArray


def save_model(
    model: nn.Module, stage: TrainStage, ranks: Ranks, *, source: Path | None, out: Path
) -> None:
    """Writes the whole model as a Hugging Face directory, with the source's tokenizer; rank 0."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(model, options=options)
    if ranks.rank != 0:
        return
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    # The sharded object has a class made at run time; a fresh one saves under its real name.
    whole = build_model(model.config, seed=stage.seed, dtype=torch.float32)
    whole.load_state_dict(weights)
    whole.tie_weights()
    set_default_attention(whole, stage.kind, stage.attention)
    whole.save_pretrained(part)
    for file in tokenizer_files(source) if source else []:
        shutil.copyfile(file, part / file.name)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


def tokenizer_files(folder: Path) -> list[Path]:
    """Returns the files that make a tokenizer directory, those that are there."""
    patterns = ("tokenizer*", "special_tokens_map.json", "vocab.json", "merges.txt", "*.jinja")
    return sorted({file for pattern in patterns for file in folder.glob(pattern)})


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
