"""What the grid times: one layer as training runs it, and its attention alone, on random input.

One layer and the ends are built, never the whole model: 64K tokens of a large model fit that way.
T packed tokens, H query heads, G key heads, D head dim.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from sbcore.attention.call import AttentionCall, FixedBudgets
from sbcore.attention.interface import attend_layer
from sbcore.config.stages import ProfileLatencyStage
from sbcore.latency.as_trained import one_layer, train_config
from sbcore.latency.table import GridPoint
from sbcore.latency.timing import Run
from sbcore.model.build import fill_model

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TARGET_STRIDE = 16
"""Every 16th token is a target: prompts outweigh answers in long-context data, and the head and
the loss are computed for targets only."""

_ALONE = ("attention", "dense", "own_block", "reference")
"""Parts that are attention without the layer around it."""


@dataclass(frozen=True)
class Batch:
    """Random input of a micro-batch on the device, as training packs it."""

    input_ids: torch.Tensor  # int64 [1, T]
    position_ids: torch.Tensor  # int64 [1, T]
    predict_at: torch.Tensor  # int64 [n]
    labels: torch.Tensor  # int64 [n]

    @staticmethod
    def random(lengths: tuple[int, ...], vocab_size: int, generator: torch.Generator) -> "Batch":
        """Returns packed sequences of random tokens."""
        device, tokens = generator.device, sum(lengths)
        ids = torch.randint(vocab_size, (1, tokens), generator=generator, device=device)
        positions = torch.cat([torch.arange(n, device=device) for n in lengths])[None]
        targets = torch.arange(0, tokens, TARGET_STRIDE, device=device)
        return Batch(ids, positions, targets, ids[0, targets])


def attention_call(
    lengths: tuple[int, ...],
    top_k: int,
    config: ProfileLatencyStage,
    *,
    known: bool,
    device: torch.device,
) -> AttentionCall:
    """Returns the call of packed sequences at one budget.

    Where the host knows that it covers all of them, attention is dense. Unknown is what tuned
    budgets are that layers clamp.
    """
    budgets = FixedBudgets.of(top_k, len(lengths), device)
    ends = torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32)
    return AttentionCall(
        cu_seqlens=ends,
        lengths=lengths,
        block_size=config.attention.block_size,
        backend=config.attention.backend,
        budgets=budgets if known else replace(budgets, top_k_range=(1, top_k)),
    )


class LayerRuns:
    """Makes the work of each grid point, ready to be timed."""

    def __init__(
        self,
        architecture: "PretrainedConfig",
        config: ProfileLatencyStage,
        *,
        device: torch.device,
        seed: int,
    ) -> None:
        self.config, self.device = config, device
        self._dtype = getattr(torch, config.model.dtype)
        self._generator = torch.Generator(device).manual_seed(seed)
        made = one_layer(architecture, config.model, train_config(config, weighs=False))
        self.model = cast(Any, made.module)
        fill_model(self.model, None, device=device, seed=seed)
        self.model.to(self._dtype).train()
        self.model.enable_input_require_grads()  # the ends of frozen weights have a backward too
        self._recompute = made.recompute
        self._decoder = self.model.get_decoder()
        self._layers = self._decoder.layers

    def make(self, point: GridPoint) -> Run:
        """Returns the work of the point, valid until the next one is made."""
        lengths = (point.length,) * point.num_sequences
        self._recompute.above_tokens = -1 if point.recompute else sum(lengths)
        self._recompute.prepare(sum(lengths))
        if point.part in _ALONE:
            return self._attention(lengths, point.top_k, known=point.part == "dense")
        self._decoder.layers = self._layers if point.part == "layer" else nn.ModuleList()
        return self._model(lengths)

    def _attention(self, lengths: tuple[int, ...], top_k: int, *, known: bool) -> Run:
        q, k, v = self._queries_keys_values(sum(lengths))
        gradient, scale = self._random(*q.shape), q.shape[2] ** -0.5
        call = attention_call(lengths, top_k, self.config, known=known, device=self.device)
        call.keep_choices = twice = self._recompute.active and self._recompute.mode == "full"

        def run() -> None:
            if twice:  # the choice is kept, the rest is done again
                with torch.no_grad():
                    attend_layer(0, q, k, v, call=call, scale=scale)
            out = attend_layer(0, q, k, v, call=call, scale=scale)
            torch.autograd.grad(out, (q, k, v), gradient)

        return run

    def _queries_keys_values(self, num_tokens: int) -> tuple[torch.Tensor, ...]:
        """Returns q [T, H, D], k and v [T, G, D], side by side in memory as rotation leaves them.

        What a layer that lays them out otherwise pays for it is in the layer's own time.
        """
        shape = self.model.config
        num_heads, num_key_heads = shape.num_attention_heads, shape.num_key_value_heads
        dim = getattr(shape, "head_dim", None) or shape.hidden_size // num_heads
        joint = self._random(num_tokens, num_heads + num_key_heads, dim)
        parts = joint.split([num_heads, num_key_heads], 1)
        values = self._random(num_tokens, num_key_heads, dim)
        return tuple(part.detach().requires_grad_() for part in (*parts, values))

    def _model(self, lengths: tuple[int, ...]) -> Run:
        """Returns the whole of what is left of the model: ends, with the layer or without."""
        batch = Batch.random(lengths, self.model.config.vocab_size, self._generator)
        call = attention_call(lengths, 1, self.config, known=False, device=self.device)
        call.keep_choices = self._recompute.active

        def run() -> None:
            self.model(**vars(batch), sb_call=call).backward()
            self.model.zero_grad(set_to_none=True)

        return run

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator, device=self.device, dtype=self._dtype)
