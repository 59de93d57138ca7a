"""Whether a latency table's times are those of a training: it says how its layers ran."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbcore.config.training import ModelConfig, TrainConfig
from sbcore.errors import SparseBalanceError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_TOLD = ("forward", "loss")
"""Facts that tables measured before do not state."""


def how_trained(
    architecture: "PretrainedConfig", model: ModelConfig, train: TrainConfig
) -> dict[str, Any]:
    """Returns what changes the times of a training, in the words of a table's header."""
    from sbcore.latency.architecture import describe_shape
    from sbcore.latency.as_trained import forward_of
    from sbcore.latency.facts import LOSS

    recomputes = train.activation_checkpointing != "none"
    return describe_shape(architecture) | {
        "dtype": model.dtype,
        "forward": forward_of(architecture, model, train),
        "loss": LOSS,
        "activation_checkpointing": train.activation_checkpointing,
        "recompute_above_tokens": train.recompute_above_tokens if recomputes else None,
        "layers_per_shard": train.layers_per_shard,
        "keep_gathered": train.keep_gathered,
        "compile_layers": train.compile_layers,
        "lora_rank": None if model.lora is None else model.lora.rank,
    }


def refuse_other(table: Path, head: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
    """Refuses a table that was made with other facts than `how_trained` returns.

    What it does not state at all is said on stderr where it is read.

    Raises:
        SparseBalanceError: Plans made with it would rest on the times of something else.
    """
    for key, value in trained.items():
        if key in head and head[key] != value:
            raise SparseBalanceError(
                f"{table}: {key} = {head[key]}: the table's times are those of another training, "
                f"where it is {value}. measure one for this: sb profile-latency."
            )


def unstated(table: Path, head: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for a table that does not say how its layers ran."""
    missing = [key for key in _TOLD if key not in head]
    if missing:
        yield (
            f"{table}: {', '.join(missing)}: not stated: an older version's times, which may not "
            "be those of today's training. measure it again: sb profile-latency."
        )
