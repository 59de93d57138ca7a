"""Inputs of the benchmarks, drawn on the device: the two families of `sbkernels.testing`.

Drawing 64K tokens x 16 heads on the CPU takes seconds of device time; the formulas are the
same, the numbers are not.

Shapes: T packed tokens, H query heads, G key heads, D head dim.
"""

from collections.abc import Sequence

import torch
from settings import Setting

from sbkernels.testing import TOPIC_PERSISTENCE, TOPIC_TOKENS, PackedInputs

# What a token adds of its own to the topic it shares with its neighbours.
TOKEN_NOISE = 0.05


def draw(setting: Setting, lengths: tuple[int, ...], family: str) -> PackedInputs:
    """Returns inputs of these lengths in the shape of the setting."""
    return draw_inputs(
        lengths,
        num_heads=setting.num_heads,
        num_kv_heads=setting.num_kv_heads,
        head_dim=setting.head_dim,
        family=family,
        seed=0,
    )


def draw_inputs(
    lengths: Sequence[int],
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    family: str,
    seed: int,
) -> PackedInputs:
    """Returns bfloat16 inputs on the current CUDA device for sequences of these lengths."""
    generator = torch.Generator("cuda").manual_seed(seed)
    num_tokens = sum(lengths)

    def normal(heads: int) -> torch.Tensor:
        return torch.randn(num_tokens, heads, head_dim, generator=generator, device="cuda")

    q, k = normal(num_heads), normal(num_kv_heads)
    if family == "correlated":
        topic = _drift(num_tokens, num_kv_heads, head_dim, generator)
        q = q * TOKEN_NOISE + topic.repeat_interleave(num_heads // num_kv_heads, dim=1)
        k = k * TOKEN_NOISE + topic
    return PackedInputs(
        q=q.bfloat16(),
        k=k.bfloat16(),
        v=normal(num_kv_heads).bfloat16(),
        grad_out=normal(num_heads).bfloat16(),
        cu_seqlens=torch.tensor([0, *lengths], device="cuda").cumsum(0).int(),
        max_seqlen=max(lengths),
    )


def _drift(
    num_tokens: int, num_kv_heads: int, head_dim: int, generator: torch.Generator
) -> torch.Tensor:
    """Returns [T, G, D]: a stationary walk of unit variance, made by one matrix product."""
    num_topics = -(-num_tokens // TOPIC_TOKENS)
    steps = torch.randn(num_topics, num_kv_heads, head_dim, generator=generator, device="cuda")
    steps[1:] *= (1 - TOPIC_PERSISTENCE**2) ** 0.5
    age = torch.arange(num_topics, device="cuda")
    age = age[:, None] - age[None, :]
    memory = torch.where(age >= 0, TOPIC_PERSISTENCE ** age.clamp(min=0).float(), 0.0)
    topic = torch.einsum("st,tgd->sgd", memory, steps)
    return topic.repeat_interleave(TOPIC_TOKENS, dim=0)[:num_tokens]
