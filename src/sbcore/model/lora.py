"""LoRA by peft: adapters inside the model's own linear layers, which keep their names."""

import hashlib
import importlib.util
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from sbcore.config.lora import LoraConfig
from sbcore.errors import SparseBalanceError
from sbcore.model.layers import adapter_weights, weight_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "default"
"""peft's name of the only adapter."""


def add_lora(model: "PreTrainedModel", config: LoraConfig) -> None:
    """Puts adapters into the model in place; they alone are trained, float32.

    The model lies on `meta` and is not sharded yet: `random_adapters` fills them later.

    Raises:
        SparseBalanceError: peft is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise SparseBalanceError(
            "model.lora: peft is not installed. pip install peft, or train all weights: "
            "model.lora: null."
        )
    import peft

    words = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        task_type="CAUSAL_LM",
    )
    peft.inject_adapter_in_model(words, model, adapter_name=ADAPTER, low_cpu_mem_usage=True)
    wrong = {n for n, w in adapter_weights(model).items() if w.dtype is not torch.float32}
    assert not wrong, wrong


def lora_layers(model: torch.nn.Module) -> dict[str, Any]:
    """Returns peft's layers by the name of the weight that each adapts, as in the files."""
    from peft.tuners.lora import LoraLayer

    return {
        weight_name(f"{name}.base_layer.weight"): layer
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }


def merge(
    weight: torch.Tensor, *, a: torch.Tensor, b: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Returns weight + scaling * b a in float32: [out, in], [rank, in], [out, rank]."""
    return weight.float() + scaling * (b.float() @ a.float())


def seed_dropout(seed: int) -> None:
    """Seeds torch's generators, from which dropout draws, for this rank: each drops on its own.

    Checkpoints keep their state from then on.
    """
    rank = dist.get_rank() if dist.is_initialized() else 0
    digest = hashlib.sha256(f"dropout {seed} {rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8]) >> 1)
