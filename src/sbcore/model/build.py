"""Makes the model of a run, with our attention in it.

Families are those whose decoder layers hand unknown keyword arguments down to the attention
function: Qwen2, Qwen3, Llama.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from sbcore.attention.interface import ATTENTION_NAME, register_attention
from sbcore.config.compute import AttentionConfig
from sbcore.config.training import ModelShape
from sbcore.errors import SparseBalanceError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

FAMILIES = ("qwen2", "qwen3", "llama")


def read_model_config(folder: Path) -> "PretrainedConfig":
    """Returns the directory's configuration; refuses what is no model of a known family."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise SparseBalanceError(
            f"model.path = {folder}: not a model directory, config.json is missing. "
            "give a Hugging Face directory."
        )
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.model_type not in FAMILIES:
        raise SparseBalanceError(
            f"model.path = {folder}: model_type = {config.model_type}: not supported. "
            f"use one of {', '.join(FAMILIES)}."
        )
    return config


def shape_config(shape: ModelShape, *, vocab_size: int, max_tokens: int) -> "PretrainedConfig":
    """Returns a Qwen2 configuration of this shape; embeddings are tied, as in the small Qwen2."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        initializer_range=shape.initializer_range,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        max_position_embeddings=max_tokens,
        tie_word_embeddings=True,
        use_cache=False,
    )


def build_model(config: "PretrainedConfig", *, seed: int, dtype: torch.dtype) -> "PreTrainedModel":
    """Returns a model with random weights of this seed and our attention."""
    from transformers import AutoModelForCausalLM

    _prepare_library()
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(
        config, attn_implementation=ATTENTION_NAME, dtype=dtype, trust_remote_code=False
    )


def load_model(folder: Path, *, dtype: torch.dtype) -> "PreTrainedModel":
    """Returns the directory's model with our attention; weights are read as safetensors only."""
    from transformers import AutoModelForCausalLM

    read_model_config(folder)
    _prepare_library()
    return AutoModelForCausalLM.from_pretrained(
        folder,
        attn_implementation=ATTENTION_NAME,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )


def _prepare_library() -> None:
    """Makes our attention known and silences bars: ours tell more, and each rank would draw one."""
    from transformers.utils.logging import disable_progress_bar

    register_attention()
    disable_progress_bar()


def set_default_attention(
    model: "PreTrainedModel", kind: Literal["sparse", "dense"], attention: AttentionConfig
) -> None:
    """Sets what calls without an AttentionCall use: generation, and whoever loads the model."""
    model.config.sparsebalance = {
        "block_size": attention.block_size,
        "top_k": attention.top_k if kind == "sparse" else None,
        "backend": attention.backend,
    }
