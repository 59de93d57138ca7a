"""The decoder's forward in few launches, over the library's modules and weights.

Below 16K tokens a layer costs what its launches cost the host. The library's layer has 38
forward and 77 backward, this one 14 and 22, and what it computes is the same to rounding. Weights
stay where they are: files, sharding and optimizer see no difference.

T packed tokens, E hidden size, H query heads, G key heads, D head dim.
"""

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import rms_norm

from sbcore.attention.call import AttentionCall
from sbcore.attention.interface import attend_layer
from sbcore.model.adapted_feed_forward import adapted_feed_forward
from sbcore.model.adapter import base_of, is_adapted
from sbcore.model.feed_forward import gated_feed_forward
from sbcore.model.projection import project, project_jointly
from sbcore.model.rotary import rotate

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LayerInputs:
    """What all layers of a micro-batch read; no dataclass, whose fields sharding would search."""

    __slots__ = ("call", "cos", "sin")

    def __init__(self, call: AttentionCall, cos: torch.Tensor, sin: torch.Tensor) -> None:
        self.call = call
        self.cos, self.sin = cos, sin  # [T, 1, D/2]


def suits_own_forward(model: "PreTrainedModel") -> bool:
    """Returns whether all layers are what this forward computes: plain or with LoRA, silu.

    Families are checked where a model's configuration is read.
    """
    return model.config.hidden_act == "silu" and all(map(_suits, model.get_decoder().layers))


def give_own_forward(model: "PreTrainedModel") -> None:
    """Replaces the forward of the decoder and of its layers in place; hooks still run.

    A layer then takes hidden states [T, E] and `LayerInputs`; the decoder takes what `give_loss`
    hands it and answers with ``last_hidden_state`` [1, T, E].
    """
    decoder: Any = model.get_decoder()
    for layer in decoder.layers:
        layer.forward = partial(_run_layer, layer)
    decoder.forward = partial(_run_decoder, decoder)


def _suits(layer: nn.Module) -> bool:
    attention: Any = layer.self_attn
    mlp: Any = layer.mlp
    inputs = [base_of(part) for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
    inner = [base_of(part) for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)]
    linear = all(type(part) is nn.Linear for part in (*inputs, base_of(attention.o_proj), *inner))
    return (
        linear
        and len({part.bias is None for part in inputs}) == 1
        and all(part.bias is None for part in inner)
    )


def _run_decoder(
    decoder: Any,
    *,
    input_ids: torch.Tensor,
    position_ids: torch.Tensor,
    use_cache: bool,
    sb_call: AttentionCall,
) -> SimpleNamespace:
    """Returns the last hidden states, normed, [1, T, E]."""
    assert not use_cache, "training keeps no cache"
    hidden = decoder.embed_tokens(input_ids[0])
    cos, sin = decoder.rotary_emb(hidden, position_ids)  # [1, T, D], both halves of D alike
    half = cos.shape[2] // 2
    inputs = LayerInputs(sb_call, cos[0, :, None, :half], sin[0, :, None, :half])
    for layer in decoder.layers:
        hidden = layer(hidden, inputs)
    return SimpleNamespace(last_hidden_state=_norm(decoder.norm, hidden)[None])


def _run_layer(layer: Any, hidden: torch.Tensor, inputs: LayerInputs) -> torch.Tensor:
    attention, mlp = layer.self_attn, layer.mlp
    q, k, v = _queries_keys_values(attention, _norm(layer.input_layernorm, hidden), inputs)
    attended = attend_layer(
        attention.layer_idx, q, k, v, call=inputs.call, scale=attention.scaling
    ).flatten(1)
    hidden = hidden + project(attended, attention.o_proj)
    return hidden + _feed_forward(_norm(layer.post_attention_layernorm, hidden), mlp)


def _feed_forward(normed: torch.Tensor, mlp: Any) -> torch.Tensor:
    """Returns what the feed-forward layer adds, [T, E]."""
    gate, up, down = mlp.gate_proj, mlp.up_proj, mlp.down_proj
    if any(map(is_adapted, (gate, up, down))):
        return adapted_feed_forward(normed, gate, up, down)
    return gated_feed_forward(normed, gate.weight, up.weight, down.weight)


def _queries_keys_values(
    attention: Any, normed: torch.Tensor, inputs: LayerInputs
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns q [T, H, D], k and v [T, G, D], positions turned into q and k."""
    layers = (attention.q_proj, attention.k_proj, attention.v_proj)
    heads = project_jointly(normed, layers).unflatten(1, (-1, attention.head_dim))
    num_key_heads = attention.k_proj.out_features // attention.head_dim
    if hasattr(attention, "q_norm"):  # Qwen3
        num_heads = heads.shape[1] - 2 * num_key_heads
        q, k, v = heads.split([num_heads, num_key_heads, num_key_heads], 1)
        heads = torch.cat([_norm(attention.q_norm, q), _norm(attention.k_norm, k), v], 1)
    return rotate(heads, inputs.cos, inputs.sin, num_key_heads=num_key_heads)


def _norm(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """Returns x normed over its last dimension: one launch, where the library takes eight."""
    weight = norm.weight
    return rms_norm(x, weight.shape, weight, norm.variance_epsilon)
