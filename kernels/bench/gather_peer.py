"""The formulation of the public MoBA code as a peer: rows gathered by key block, merged by lse.

Every past choice is a copied row of q; all rows of a (query head, key block) are one sequence of
the library's variable-length FlashAttention, the own blocks another call of it, and the
results meet row by row. The backward pass is that of FlashAttention with the merged output and
log-sum-exp. The lists are made beforehand and not timed.

Shapes: T tokens of one sequence, whole blocks; H query heads, G key heads, D head dim, M blocks,
P (row, head, past block) choices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from sbkernels.moba.selection import BlockSelection
from sbkernels.testing import PackedInputs


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The past choices in the order of heads, then blocks, then rows.

    Attributes:
        rows: int64 [P], head * T + row.
        ends: int32 [H * M + 1], where the choices of each (head, block) begin and end.
        blocks: int32 [H * M + 1], where its keys do.
        most: Most choices of one block.
        block_size: Keys of a block.
    """

    rows: torch.Tensor
    ends: torch.Tensor
    blocks: torch.Tensor
    most: int
    block_size: int


def list_choices(selection: BlockSelection) -> Choices:
    """Returns the past choices of a selection for one sequence of whole blocks."""
    member = selection.membership()  # [H, T, M]
    _, num_tokens, num_blocks = member.shape
    row = torch.arange(num_tokens, device=member.device)
    block = torch.arange(num_blocks, device=member.device)
    past = member & (block < (row // selection.block_size)[:, None])
    counts = past.sum(dim=1).flatten()
    head_and_block, row = past.transpose(1, 2).flatten(0, 1).nonzero(as_tuple=True)
    ends = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    return Choices(
        rows=head_and_block // num_blocks * num_tokens + row,
        ends=ends.int(),
        blocks=torch.arange(counts.numel() + 1, device=ends.device).int() * selection.block_size,
        most=int(counts.max()),
        block_size=selection.block_size,
    )


def gather_call(
    inputs: PackedInputs, selection: BlockSelection, *, backward: bool
) -> Callable[[], tuple[torch.Tensor, ...]]:
    """Returns a call of attention over the selected blocks: out, or out, dq, dk, dv."""
    choices = list_choices(selection)
    leaves = [x.detach().requires_grad_(backward) for x in (inputs.q, inputs.k, inputs.v)]

    def call() -> tuple[torch.Tensor, ...]:
        group = inputs.q.shape[1] // inputs.k.shape[1]
        parts = (leaves[0], *(x.repeat_interleave(group, dim=1) for x in leaves[1:]))
        flat = (x.transpose(0, 1).reshape(-1, 1, x.shape[2]) for x in parts)
        out = _GatherAttention.apply(*flat, choices)
        out = out.view(inputs.q.shape[1], -1, inputs.q.shape[2]).transpose(0, 1)
        if not backward:
            return (out,)
        return (out.detach(), *torch.autograd.grad(out, leaves, inputs.grad_out))

    return call


class _GatherAttention(torch.autograd.Function):
    """All tensors [H * T, 1, D], the rows of a head one behind the other."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, choices: Choices
    ) -> torch.Tensor:
        own, own_lse, *own_state = _attend(q, k, v, choices, past=False)
        past, past_lse, *past_state = _attend(q[choices.rows], k, v, choices, past=True)
        top = own_lse.scatter_reduce(0, choices.rows, past_lse, "amax")
        own_weight, past_weight = (own_lse - top).exp(), (past_lse - top[choices.rows]).exp()
        total = own_weight.index_add(0, choices.rows, past_weight)
        out = own.float() * own_weight[:, None, None]
        out.index_add_(0, choices.rows, past.float() * past_weight[:, None, None])
        merged = (out / total[:, None, None]).to(q.dtype)
        ctx.save_for_backward(q, k, v, merged, top + total.log(), *own_state, *past_state)
        ctx.choices = choices
        return merged

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, out, lse, *states = ctx.saved_tensors
        rows, grad = ctx.choices.rows, grad.contiguous()
        own = _differentiate(grad, q, k, v, out, lse, states[:2], ctx.choices, past=False)
        here = (x[rows] for x in (grad, q))
        there = (x[rows] for x in (out, lse))
        past = _differentiate(*here, k, v, *there, states[2:], ctx.choices, past=True)
        dq = own[0].float().index_add_(0, rows, past[0].float()).to(q.dtype)
        return dq, own[1] + past[1], own[2] + past[2], None


def _spans(choices: Choices, *, past: bool) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    if past:
        return choices.ends, choices.blocks, choices.most, choices.block_size
    return choices.blocks, choices.blocks, choices.block_size, choices.block_size


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, choices: Choices, *, past: bool
) -> tuple[torch.Tensor, ...]:
    """Returns the output, the log-sum-exp [rows], and what the backward pass wants back."""
    out, lse, *state, _ = torch.ops.aten._flash_attention_forward(
        q, k, v, *_spans(choices, past=past), 0.0, not past, False
    )
    return out, lse.flatten(), *state


def _differentiate(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    state: list[torch.Tensor],
    choices: Choices,
    *,
    past: bool,
) -> tuple[torch.Tensor, ...]:
    spans = _spans(choices, past=past)
    gradients: tuple[torch.Tensor, ...] = torch.ops.aten._flash_attention_backward(
        grad, q, k, v, out, lse[None], *spans, 0.0, not past, *state
    )
    return gradients
