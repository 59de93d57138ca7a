"""Where the layers and weights of a model are, whatever has been put around them."""

import re
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PUT_AROUND = re.compile(r"(?<![^.])(base_layer|_checkpoint_wrapped_module|_orig_mod)\.")
_ADAPTER = re.compile(r"\.lora_[AB]\.")


def decoder_layers(model: "PreTrainedModel") -> list[nn.Module]:
    """Returns the decoder layers, first to last; adapters and sharding may be on them."""
    return list(model.get_decoder().layers)


def weight_name(name: str) -> str:
    """Returns a parameter's name as in the model's files: free of adapters and other wrapping."""
    return _PUT_AROUND.sub("", name)


def base_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the model's own weights by their name in its files; tied ones once, no adapters."""
    return {
        weight_name(name): weight
        for name, weight in model.named_parameters()
        if not _ADAPTER.search(name)
    }


def adapter_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the adapters' weights by name; none without adapters."""
    return {
        weight_name(name): weight
        for name, weight in model.named_parameters()
        if _ADAPTER.search(name)
    }
