"""The profile in one line: what was measured, how good it is, and where the time went."""

from collections.abc import Mapping
from typing import Any


def closing_sentence(head: Mapping[str, Any]) -> str:
    """Returns the numbers that matter of a profile's header."""
    error, seconds = head["error"], head["seconds"]
    whole = error["micro_batch_mape"]
    parts = [
        f"{head['device']}, {head['num_layers']} layers",
        f"error {100 * error['mape']:.1f} % (rank correlation {error['rank_correlation']:.3f}, "
        f"regret {100 * error['regret']:.2f} %)",
        "micro-batches not checked" if whole is None else f"micro-batches {100 * whole:.1f} %",
        f"floor {head['floor_ms'] + head['constant_ms']:.1f} ms, "
        f"constant {head['constant_ms']:.1f} ms, scale {head['scale']:.2f}",
    ]
    if seconds is not None:
        parts.append(
            f"drift {100 * head['drift']['largest']:.1f} %, grid {seconds['grid']:.0f} s, "
            f"micro-batches {seconds['micro_batches']:.0f} s"
        )
    return "; ".join(parts)
