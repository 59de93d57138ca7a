"""Whether a latency table's times are those of a training: it states how its layers ran.

No torch is imported here.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from sbcore.config.training import ModelConfig, TrainConfig
from sbcore.errors import SparseBalanceError

LOSS = "chunked"
"""`model.loss`: logits of a chunk of targets at a time. Another one needs another word, so that
tables of this one are told apart."""

_NEWER = ("forward", "loss", "lora_targets")
"""Facts that tables measured before do not state."""


def how_trained(model: ModelConfig, train: TrainConfig) -> dict[str, Any]:
    """Returns what of a training's settings changes its times, in the words of a table's header.

    Whose forward runs the layers is decided where the model is made: `as_trained.forward_of`.
    """
    recomputes, lora = train.activation_checkpointing != "none", model.lora
    return {
        "dtype": model.dtype,
        "loss": LOSS,
        "activation_checkpointing": train.activation_checkpointing,
        "recompute_above_tokens": train.recompute_above_tokens if recomputes else None,
        "layers_per_shard": train.layers_per_shard,
        "keep_gathered": train.keep_gathered,
        "compile_layers": train.compile_layers,
        "lora_rank": None if lora is None else lora.rank,
        "lora_targets": None if lora is None else sorted(set(lora.targets)),
    }


def stated(head: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a header states, outright or by what it states: no adapters, no targets."""
    has_none = "lora_rank" in head and head["lora_rank"] is None
    return ({"lora_targets": None} if has_none else {}) | dict(head)


def refuse_other(
    table: Path,
    head: Mapping[str, Any],
    trained: Mapping[str, Any],
    *,
    of: Literal["model", "training"],
) -> None:
    """Refuses a table that was measured otherwise than a training runs, by the first fact.

    The facts are those ``of`` its model (`architecture.trained_shape`) or of its settings. What the
    table does not state at all is said on stderr where it is read.

    Raises:
        SparseBalanceError: Plans made with it would rest on the times of something else.
    """
    for key, value in trained.items():
        if key in head and head[key] != value:
            raise SparseBalanceError(
                f"{table}: {key} = {head[key]}: the times of another {of}, where it is "
                f"{value}. measure a table for this one: sb profile-latency."
            )


def unstated(table: Path, head: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for a table that does not state how its layers ran."""
    missing = [key for key in _NEWER if key not in stated(head)]
    if missing:
        yield (
            f"{table}: {', '.join(missing)}: not stated: an older version's times, which may not "
            "be those of today's training. measure it again: sb profile-latency."
        )
