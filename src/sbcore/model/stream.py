"""Reads a Hugging Face directory into a sharded model, each rank only the rows that it holds.

Files are mapped, not read: the host memory of a rank is its own part of one tensor at a time,
and on a CPU the shard itself.
"""

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sbcore.errors import SparseBalanceError
from sbcore.model.files import check_names, opened, weight_files
from sbcore.model.layers import base_weights
from sbcore.model.own_part import held_here, own_part

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TYPES = ("F64", "F32", "F16", "BF16")


def stream_weights(model: "PreTrainedModel", folder: Path) -> None:
    """Fills the model's own weights from the directory, converted to the type each has.

    Every rank calls it, after `materialise`; ranks need not wait for each other.

    Raises:
        SparseBalanceError: A weight is missing, unexpected, of another shape or quantised, or a
            file is torn; nothing but the weights before it has been filled then.
    """
    weights = base_weights(model)
    files = weight_files(folder)
    check_names(folder, found=set(files) - _redundant(model), wanted=weights)
    by_file: dict[Path, list[str]] = defaultdict(list)
    for name in weights:
        by_file[files[name]].append(name)
    for path, names in by_file.items():
        with opened(path) as file:
            for name in names:
                _fill(weights[name], file.get_slice(name), place=f"{path}: {name}")


def _redundant(model: "PreTrainedModel") -> set[str]:
    """Returns what older directories hold besides: rotary frequencies, the other tied end."""
    layers = range(model.config.num_hidden_layers)
    old = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq" for layer in layers}
    return old | ({"lm_head.weight"} if model.config.tie_word_embeddings else set())


def _fill(weight: torch.Tensor, stored: Any, *, place: str) -> None:
    """Copies this rank's part out of safetensors' slice."""
    shape, dtype = tuple(stored.get_shape()), stored.get_dtype()
    if shape != tuple(weight.shape):
        raise SparseBalanceError(
            f"{place}: shape {list(shape)}, config.json says {list(weight.shape)}. "
            "config.json and the weights must be of one model."
        )
    if dtype not in _TYPES:
        raise SparseBalanceError(
            f"{place}: type {dtype}: quantised weights are not trained. "
            "give the directory of the unquantised model."
        )
    target = held_here(weight)
    if target.numel():
        target.copy_(stored[own_part(weight)])
