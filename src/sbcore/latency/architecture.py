"""The architecture of the model that is measured, from its directory or the configuration.

What a table's times depend on of it, which is known without torch too.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbcore.config.stages import ProfileLatencyStage
from sbcore.config.training import ModelConfig, ModelShape
from sbcore.errors import SparseBalanceError
from sbcore.model import files

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_SHAPE = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)


def read_architecture(
    config: ProfileLatencyStage, model_dir: Path | None, *, vocab_size: int | None
) -> "PretrainedConfig":
    """Returns the directory's architecture, or the configured shape with so many words.

    Raises:
        SparseBalanceError: The directory holds no supported model, one is configured but not
            given, or nothing says how many words.
    """
    from sbcore.model.build import read_model_config, shape_config

    if model_dir is not None:
        return read_model_config(model_dir)
    if config.model.path is not None:
        raise SparseBalanceError(
            f"model.path = {config.model.path}: --model is not given, so another model, "
            f"model.shape's, would be measured. add --model {config.model.path}."
        )
    words = vocab_size or config.model.shape.vocab_size
    if words is None:
        raise SparseBalanceError(
            "model.shape.vocab_size = null: the size of the head is unknown. "
            "give prepared data (--data), a model (--model) or a built-in shape."
        )
    longest = max(*config.latency.lengths, config.max_tokens)
    return shape_config(config.model.shape, vocab_size=words, max_tokens=longest)


def describe_shape(architecture: "PretrainedConfig") -> dict[str, Any]:
    """Returns what of the architecture its times depend on."""
    heads = architecture.num_attention_heads
    head_dim = getattr(architecture, "head_dim", None) or architecture.hidden_size // heads
    shape = {key: getattr(architecture, key) for key in _SHAPE}
    layers = {"num_layers": architecture.num_hidden_layers, "head_dim": head_dim}
    return {"model_type": architecture.model_type} | layers | shape


def trained_shape(model: ModelConfig, model_dir: Path | None, *, vocab_size: int) -> dict[str, Any]:
    """Returns what `describe_shape` says of a training's model, as far as it is written down.

    A directory need not state what follows from the rest. ``vocab_size`` is that of the data, which
    a configured shape may leave open.

    Raises:
        SparseBalanceError: The directory holds no model.
    """
    if model_dir is None:
        written = _spelled_out(model.shape, vocab_size)
    else:
        written = files.read_architecture(model_dir)
    keys = {"num_layers": "num_hidden_layers"} | {
        key: key for key in ("model_type", "head_dim", *_SHAPE)
    }
    return {name: written[key] for name, key in keys.items() if written.get(key) is not None}


def _spelled_out(shape: ModelShape, vocab_size: int) -> dict[str, Any]:
    return shape.model_dump() | {
        "model_type": "qwen2",
        "head_dim": shape.head_dim or shape.hidden_size // shape.num_attention_heads,
        "vocab_size": shape.vocab_size or vocab_size,
    }
