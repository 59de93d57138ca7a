"""What the grid times: parts of the model's own layer, forward and backward, on random input.

One layer and the ends are built, never the whole model: 64K tokens of a large model fit that way.
T packed tokens, H query heads, G key heads, D head dim, E hidden size.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sbcore.attention.call import AttentionCall, FixedBudgets
from sbcore.attention.interface import ATTENTION_NAME
from sbcore.config.stages import ProfileLatencyStage
from sbcore.latency.table import GridPoint
from sbcore.latency.timing import Run
from sbcore.model.build import fill_model, start_model
from sbcore.model.loss import give_loss
from sbcore.model.recompute import Recompute

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_NO_ATTENTION = "sparsebalance_none"

TARGET_STRIDE = 16
"""Every 16th token is a target: prompts outweigh answers in long-context data, and the head and
the loss are computed for targets only."""


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

    Where the host knows that it covers all of them, the library's dense attention runs. Unknown is
    what tuned budgets are, and what a pack with one longer sequence is.
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
        self.model = _one_layer(architecture, config, device=device, dtype=self._dtype, seed=seed)
        self.layer: nn.Module = self.model.model.layers[0]
        self.model.model.layers = nn.ModuleList()  # what is left are the ends
        mode = config.activation_checkpointing
        self._recompute = Recompute([self.layer], mode, above_tokens=-1)

    def make(self, point: GridPoint) -> Run:
        """Returns the work of the point, valid until the next one is made."""
        lengths = (point.length,) * point.num_sequences
        self._recompute.above_tokens = -1 if point.recompute else sum(lengths)
        self._recompute.prepare(sum(lengths))
        if point.part in ("attention", "dense", "reference"):
            return self._attention(lengths, point.top_k, dense=point.part == "dense")
        return self._layer(lengths) if point.part == "layer" else self._ends(lengths)

    def _attention(self, lengths: tuple[int, ...], top_k: int, *, dense: bool) -> Run:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        shape = self.model.config
        num_heads, num_key_heads = shape.num_attention_heads, shape.num_key_value_heads
        dim = getattr(shape, "head_dim", None) or shape.hidden_size // num_heads
        # Heads inside tokens, as projections leave them.
        q, k, v = (
            self._random(1, sum(lengths), heads, dim).transpose(1, 2).requires_grad_()
            for heads in (num_heads, num_key_heads, num_key_heads)
        )
        gradient = self._random(1, sum(lengths), num_heads, dim)
        attend, layer = ALL_ATTENTION_FUNCTIONS[ATTENTION_NAME], SimpleNamespace(layer_idx=0)
        call = attention_call(lengths, top_k, self.config, known=dense, device=self.device)
        call.keep_choices = twice = self._recompute.active and self._recompute.mode == "full"

        def run() -> None:
            if twice:  # the choice is kept, the rest is done again
                with torch.no_grad():
                    attend(layer, q, k, v, None, scaling=dim**-0.5, sb_call=call)
            out, _ = attend(layer, q, k, v, None, scaling=dim**-0.5, sb_call=call)
            torch.autograd.grad(out, (q, k, v), gradient)

        return run

    def _layer(self, lengths: tuple[int, ...]) -> Run:
        batch = self._batch(lengths)
        width = self.model.config.hidden_size
        hidden = self._random(1, sum(lengths), width).requires_grad_()
        gradient = self._random(1, sum(lengths), width)
        angles = self.model.model.rotary_emb(hidden, batch.position_ids)
        wanted = (hidden, *(p for p in self.layer.parameters() if p.requires_grad))

        def run() -> None:
            out = self.layer(
                hidden, position_ids=batch.position_ids, position_embeddings=angles, use_cache=False
            )
            torch.autograd.grad(out, wanted, gradient)

        return run

    def _ends(self, lengths: tuple[int, ...]) -> Run:
        batch = self._batch(lengths)
        call = attention_call(lengths, 1, self.config, known=False, device=self.device)

        def run() -> None:
            self.model(**vars(batch), sb_call=call).backward()
            self.model.zero_grad(set_to_none=True)

        return run

    def _batch(self, lengths: tuple[int, ...]) -> Batch:
        return Batch.random(lengths, self.model.config.vocab_size, self._generator)

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator, device=self.device, dtype=self._dtype)


def _one_layer(
    architecture: "PretrainedConfig",
    config: ProfileLatencyStage,
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
) -> "PreTrainedModel":
    """Returns a model of one layer, whose attention only hands its queries on."""
    single = deepcopy(architecture)
    single.num_hidden_layers = 1
    if getattr(single, "layer_types", None):
        single.layer_types = single.layer_types[:1]
    model = start_model(single, config.model)
    for layer in model.model.layers if config.compile_layers else ():
        layer.forward = torch.compile(layer.forward, dynamic=True)
    give_loss(model)
    fill_model(model, None, device=device, seed=seed)
    model.to(dtype).train()
    model.enable_input_require_grads()  # with frozen embeddings too, the head has a backward
    _register_no_attention()
    model.set_attn_implementation(_NO_ATTENTION)
    return model


def _register_no_attention() -> None:
    """Makes an attention known that costs nothing: what is left is the linear part."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(_NO_ATTENTION, _queries_only)
    AttentionMaskInterface.register(_NO_ATTENTION, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    """Returns no mask."""


def _queries_only(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    """Returns the queries [1, H, T, D] as the output [1, T, H, D]."""
    return _HandOn.apply(query, key, value), None


class _HandOn(torch.autograd.Function):
    """Moves no data; keys and values get a gradient, so that their projections work as always."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        ctx.num_key_heads = key.shape[1]
        return query.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        heads_first = gradient.transpose(1, 2)
        few = heads_first[:, : ctx.num_key_heads]
        return heads_first, few, few
