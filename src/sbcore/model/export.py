"""Writes a trained model as a Hugging Face directory that any program can load.

Weights are gathered one by one: every rank holds one whole weight at a time on its device, rank 0
besides, in host memory, the file that it is about to write (at most 5 GB).
"""

import copy
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from sbcore.artifacts import replace_folder_when_done, write_json
from sbcore.config.training import ModelConfig
from sbcore.model.files import INDEX
from sbcore.model.gather import WholeWeight, adapters_alone, merged_weights
from sbcore.model.lora import ADAPTER

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MAX_FILE_BYTES = 5 * 10**9
_ANY_SIZE = 2**62
"""peft reads adapters from one file only."""

_COPIED = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "*.jinja",
    "generation_config.json",
)


def export_model(
    model: "PreTrainedModel", out: Path, *, config: ModelConfig, source: Path | None, rank: int
) -> None:
    """Writes the directory ``out``, whole or not at all; every rank calls it, rank 0 writes.

    It holds the weights (adapters merged into them, or the adapters alone), config.json or
    adapter_config.json, and of ``source`` the tokenizer and the generation settings.
    """
    dtype = getattr(torch, config.save_dtype or config.dtype)
    with _new_folder(out, rank) as part:
        if config.lora is not None and config.lora.save == "adapter":
            weights, name, most = adapters_alone(model), "adapter_model", _ANY_SIZE
        else:
            weights, name, most = merged_weights(model), "model", _MAX_FILE_BYTES
        pattern = f"{name}{{suffix}}.safetensors"
        _write_weights(weights, part, dtype, pattern=pattern, most=most, rank=rank)
        if rank == 0:
            _write_config(model, part, config, dtype, source)
            for file in files_beside(source) if source else []:
                shutil.copyfile(file, part / file.name)


def _new_folder(folder: Path, rank: int) -> AbstractContextManager[Path]:
    """Yields a folder beside this one, of one name on all ranks; rank 0 alone makes and moves it.

    What a killed export left there may be as large as the model, and is removed first.
    """
    part = folder.with_name(f".{folder.name}.part")
    return replace_folder_when_done(folder, part=part) if rank == 0 else nullcontext(part)


def files_beside(folder: Path) -> list[Path]:
    """Returns what a model directory holds besides its model: tokenizer, generation settings."""
    return sorted({file for pattern in _COPIED for file in folder.glob(pattern)})


def _write_weights(
    weights: Mapping[str, WholeWeight],
    folder: Path,
    dtype: torch.dtype,
    *,
    pattern: str,
    most: int,
    rank: int,
) -> None:
    from huggingface_hub import split_torch_state_dict_into_shards

    shapes = {n: torch.empty(w.shape, dtype=dtype, device="meta") for n, w in weights.items()}
    split = split_torch_state_dict_into_shards(
        shapes, filename_pattern=pattern, max_shard_size=most
    )
    for file, names in split.filename_to_tensors.items():
        tensors: dict[str, torch.Tensor] = {}
        for name in names:
            whole = weights[name].gather()
            if rank == 0:
                tensors[name] = whole.to("cpu", dtype).contiguous()
        if rank == 0:
            save_file(tensors, folder / file, metadata={"format": "pt"})
    if split.is_sharded and rank == 0:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / INDEX, index)


def _write_config(
    model: "PreTrainedModel",
    folder: Path,
    config: ModelConfig,
    dtype: torch.dtype,
    source: Path | None,
) -> None:
    if config.lora is not None and config.lora.save == "adapter":
        assert source is not None, "start_model refuses adapters without a directory"
        words = copy.copy(model.peft_config[ADAPTER])
        words.base_model_name_or_path = str(source.resolve())
        words.target_modules = sorted(config.lora.targets)
        words.inference_mode = True
        words.save_pretrained(folder)
    else:
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        architecture = copy.deepcopy(model.config)
        architecture.dtype = dtype
        # A sharded model has a class made at run time.
        architecture.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model.config.model_type]]
        architecture.save_pretrained(folder)
