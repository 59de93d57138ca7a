"""Makes the model of a run, with our attention in it.

Families are those whose decoder layers hand unknown keyword arguments down to the attention
function: Qwen2, Qwen3, Llama.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from sbcore.attention.interface import ATTENTION_NAME, register_attention
from sbcore.config.compute import AttentionConfig
from sbcore.config.training import ModelConfig, ModelShape
from sbcore.errors import SparseBalanceError
from sbcore.model.files import base_folder, read_architecture
from sbcore.model.initialise import random_adapters, random_weights
from sbcore.model.layers import adapter_weights
from sbcore.model.lora import add_lora, seed_dropout
from sbcore.model.memory import materialise
from sbcore.model.stream import stream_weights

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

FAMILIES = ("qwen2", "qwen3", "llama")


def read_model_config(folder: Path) -> "PretrainedConfig":
    """Returns the directory's configuration; refuses what is no model of a known family."""
    from transformers import AutoConfig

    family = read_architecture(folder).get("model_type")
    if family not in FAMILIES:
        raise SparseBalanceError(
            f"{folder}: model_type = {family}: not supported. use one of {', '.join(FAMILIES)}."
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library's own, of many kinds
        what = " ".join(str(error).split())
        raise SparseBalanceError(
            f"{folder / 'config.json'}: {what}. correct it, or copy the model again."
        ) from None
    _check_attention(config, folder)
    return config


def _check_attention(config: "PretrainedConfig", folder: Path) -> None:
    """Refuses what our attention would leave out without a word."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    for key, wrong in {
        "layer_types": kinds != {"full_attention"},
        "attention_dropout": bool(config.attention_dropout),
    }.items():
        if wrong:
            raise SparseBalanceError(
                f"{folder / 'config.json'}: {key} = {getattr(config, key)}: not supported. "
                "use a model with full attention in all layers and without attention dropout."
            )


def shape_config(shape: ModelShape, *, vocab_size: int, max_tokens: int) -> "PretrainedConfig":
    """Returns a Qwen2 configuration of this shape; embeddings are tied, as in the small Qwen2.

    ``vocab_size`` is the tokenizer's, which a shape's own must hold.
    """
    from transformers import Qwen2Config

    if shape.vocab_size is not None and shape.vocab_size < vocab_size:
        raise SparseBalanceError(
            f"model.shape.vocab_size = {shape.vocab_size}: the tokenizer has {vocab_size} entries. "
            "raise it, or leave it out."
        )
    more = {} if shape.head_dim is None else {"head_dim": shape.head_dim}
    return Qwen2Config(
        vocab_size=shape.vocab_size or vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        initializer_range=shape.initializer_range,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        max_position_embeddings=max_tokens,
        tie_word_embeddings=True,
        **more,
    )


def start_model(architecture: "PretrainedConfig", config: ModelConfig) -> "PreTrainedModel":
    """Returns the model on `meta`, adapters in it: names, shapes and types, no memory yet.

    Shard it, then `fill_model`. Weights that are trained are float32, frozen ones of the compute
    type.

    Raises:
        SparseBalanceError: Adapters are to be saved alone, and there is no model beside them.
    """
    if config.lora is None:
        return empty_model(architecture, dtype=torch.float32)
    if config.lora.save == "adapter" and not architecture.name_or_path:
        raise SparseBalanceError(
            "model.lora.save = adapter: adapters need a model directory to stand beside, and "
            "model.path is null. set model.path, or save: merged."
        )
    model = empty_model(architecture, dtype=getattr(torch, config.dtype))
    add_lora(model, config.lora)
    return model


def fill_model(
    model: "PreTrainedModel", folder: Path | None, *, device: torch.device, seed: int
) -> None:
    """Gives the model its memory and its weights: the directory's, or random ones of the seed.

    With adapters, which have dropout, torch's generators are seeded for this rank.
    """
    materialise(model, device)
    if folder is None:
        random_weights(model, seed=seed)
    else:
        stream_weights(model, folder)
    if adapter_weights(model):
        random_adapters(model, seed=seed)
        seed_dropout(seed)


def empty_model(config: "PretrainedConfig", *, dtype: torch.dtype) -> "PreTrainedModel":
    """Returns a model on `meta` with our attention.

    Raises SparseBalanceError for a word of config.json that the library has no entry for.
    """
    from transformers import AutoModelForCausalLM

    _prepare_library()
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                config, attn_implementation=ATTENTION_NAME, dtype=dtype, trust_remote_code=False
            )
    except KeyError as error:  # rope_type and hidden_act are looked up in tables
        raise SparseBalanceError(
            f"{Path(config.name_or_path) / 'config.json'}: {error} is unknown to transformers. "
            "correct it, or install a version that knows it."
        ) from None


def build_model(config: "PretrainedConfig", *, seed: int, dtype: torch.dtype) -> "PreTrainedModel":
    """Returns a model with random weights of this seed, on torch's default device.

    The weights are those that any number of ranks of such a device get from `fill_model`.
    """
    model = empty_model(config, dtype=dtype)
    fill_model(model, None, device=torch.get_default_device(), seed=seed)
    return model


def load_model(folder: Path, *, dtype: torch.dtype) -> "PreTrainedModel":
    """Returns the directory's model with our attention, adapters merged into it."""
    base = base_folder(folder)
    if base is None:
        return _load_whole(folder, dtype)
    _check_adapters(folder, base)
    from peft import PeftModel

    with warnings.catch_warnings():  # peft asks the library by a name that it renamed
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(_load_whole(base, dtype), folder).merge_and_unload()


def _check_adapters(folder: Path, base: Path) -> None:
    """Refuses adapters without weights, for which peft looks in the net, or without their base."""
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise SparseBalanceError(f"{weights}: missing. copy the whole directory.")
    if not base.is_dir():
        raise SparseBalanceError(
            f"{folder / 'adapter_config.json'}: base_model_name_or_path = {base}: no such folder. "
            "write there where the base model lies now."
        )


def _load_whole(folder: Path, dtype: torch.dtype) -> "PreTrainedModel":
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
