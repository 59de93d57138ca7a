"""Calls of our kernels, part by part, as `attention.py` times them."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from settings import Setting

from sbkernels import coverage_curve, moba_attention, select_blocks
from sbkernels.moba.triton.lists import UnionLists, build_union_lists
from sbkernels.moba.triton.rows import RowLists, build_row_lists
from sbkernels.moba.triton.selection import PackedSelection
from sbkernels.testing import PackedInputs

LADDER = (1, 2, 4, 8, 16, 24, 32, 48, 64, 128)
# Part, implementation, and what makes the call: its lists and masks take memory until it is timed.
Maker = tuple[str, str, Callable[[], Callable[[], object]]]


def own_calls(
    setting: Setting, inputs: PackedInputs, selection: PackedSelection
) -> Iterator[Maker]:
    """Yields what is ours: parts, and the whole with the budget promised, unknown, in order."""
    top_k = selection.top_k
    options = {"block_size": setting.block_size, "max_seqlen": inputs.max_seqlen}
    here = (inputs.q, inputs.k, inputs.cu_seqlens)
    promise = {"min_top_k": setting.top_k, "max_top_k": setting.top_k, **options}
    yield "selection", "triton", lambda: partial(select_blocks, *here, top_k, **options)
    yield "lists", "triton", lambda: partial(_build_lists, selection)
    yield "coverage", "triton", lambda: partial(coverage_curve, *here, ladder=LADDER, **options)
    yield "forward", "triton", lambda: partial(_attend, inputs, top_k, **promise)
    both, call = "forward_backward", partial(attend_and_grad, inputs, top_k)
    yield both, "triton", lambda: partial(call, **promise)
    yield both, "triton_unbounded", lambda: partial(call, **options)
    yield both, "triton_deterministic", lambda: partial(call, deterministic=True, **promise)


def _build_lists(selection: PackedSelection) -> tuple[UnionLists, RowLists]:
    """Returns the lists of a call, those of rows for all heads at once."""
    words, table = selection.words, selection.table
    most = selection.top_k_range.most
    unions = build_union_lists(words, table, tile_rows=128, num_skipped=0)
    return unions, build_row_lists(words, table, None, max_top_k=most, num_skipped=0)


def _attend(inputs: PackedInputs, top_k: int | torch.Tensor, **options: int) -> torch.Tensor:
    with torch.no_grad():
        return moba_attention(inputs.q, inputs.k, inputs.v, inputs.cu_seqlens, top_k, **options)


def attend_and_grad(
    inputs: PackedInputs, top_k: int | torch.Tensor, **options: int
) -> tuple[torch.Tensor, ...]:
    """Returns out, dq, dk and dv of one call."""
    q, k, v = (x.detach().requires_grad_() for x in (inputs.q, inputs.k, inputs.v))
    out = moba_attention(q, k, v, inputs.cu_seqlens, top_k, **options)
    return (out.detach(), *torch.autograd.grad(out, (q, k, v), inputs.grad_out))
