"""What is timed: the model's own layers, forward and backward, on random input.

T packed tokens, H query heads, G key heads, D head dim.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from sbcore.attention.call import AttentionCall, FixedBudgets
from sbcore.attention.interface import ATTENTION_NAME
from sbcore.config.compute import AttentionConfig
from sbcore.latency.grid import GridPoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Run = Callable[[], None]

_NO_ATTENTION = "sparsebalance_none"

_TARGET_STRIDE = 16
"""Every 16th token is a target: prompts outweigh answers in long-context data, and the head and
the loss are computed for targets only."""


class ModelRuns:
    """Makes the work of each grid point, ready to be timed."""

    def __init__(self, model: "PreTrainedModel", attention: AttentionConfig, *, seed: int) -> None:
        self.model, self.attention = model, attention
        self.device = next(model.parameters()).device
        self._generator = torch.Generator(self.device).manual_seed(seed)

    def make(self, point: GridPoint) -> Run:
        """Returns the work of the point, valid until the next one is made."""
        if point.part == "optimizer":
            return self._update()
        lengths = (point.length,) * point.num_sequences
        if point.part == "attention":
            return self._layer_attention(lengths, point.top_k)
        name = _NO_ATTENTION if point.part == "linear" else ATTENTION_NAME
        return self._whole_model(lengths, max(point.top_k, 1), attention_name=name)

    def _layer_attention(self, lengths: tuple[int, ...], top_k: int) -> Run:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        config = self.model.config
        num_heads, num_key_heads = config.num_attention_heads, config.num_key_value_heads
        dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
        q, k, v = (
            self._random(1, heads, sum(lengths), dim).requires_grad_()
            for heads in (num_heads, num_key_heads, num_key_heads)
        )
        gradient = self._random(1, sum(lengths), num_heads, dim)
        attend, layer = ALL_ATTENTION_FUNCTIONS[ATTENTION_NAME], SimpleNamespace(layer_idx=0)
        call = self._call(lengths, top_k)

        def run() -> None:
            out, _ = attend(layer, q, k, v, None, scaling=dim**-0.5, sb_call=call)
            torch.autograd.grad(out, (q, k, v), gradient)

        return run

    def _whole_model(self, lengths: tuple[int, ...], top_k: int, *, attention_name: str) -> Run:
        _register_no_attention()
        tokens = sum(lengths)
        vocab_size = self.model.config.vocab_size
        ids = torch.randint(vocab_size, (1, tokens), generator=self._generator, device=self.device)
        positions = torch.cat([torch.arange(n, device=self.device) for n in lengths])[None]
        targets = torch.arange(0, tokens, _TARGET_STRIDE, device=self.device)
        call = self._call(lengths, top_k)
        self.model.set_attn_implementation(attention_name)

        def run() -> None:
            logits = self.model(
                input_ids=ids,
                position_ids=positions,
                use_cache=False,
                logits_to_keep=targets,
                sb_call=call,
            ).logits[0]
            cross_entropy(logits.float(), ids[0, targets]).backward()

        return run

    def _update(self) -> Run:
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0)

        def run() -> None:
            optimizer.step()

        return run

    def _call(self, lengths: tuple[int, ...], top_k: int) -> AttentionCall:
        ends = torch.tensor([0, *lengths], device=self.device).cumsum(0).to(torch.int32)
        return AttentionCall(
            cu_seqlens=ends,
            lengths=lengths,
            block_size=self.attention.block_size,
            backend=self.attention.backend,
            budgets=FixedBudgets(torch.full_like(ends[1:], top_k)),
        )

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(
            shape, generator=self._generator, device=self.device, dtype=self.model.dtype
        )


def _register_no_attention() -> None:
    """Makes an attention known that only hands the values on: what is left is the linear part."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(_NO_ATTENTION, _values_only)
    AttentionMaskInterface.register(_NO_ATTENTION, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    """Returns no mask."""


def _values_only(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    """Returns [1, T, H, D]: every query head gets its key head's values, queries and keys 0 * x."""
    repeated = value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)
    touched = query * 0.0 + (key * 0.0).repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    return (repeated + touched).transpose(1, 2), None
