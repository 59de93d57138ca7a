"""Calls of our attention with what the host knows, how heads are cut and what is dense given."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from inputs import draw_inputs

from sbkernels import moba_attention, select_blocks
from sbkernels.moba.triton import op, windows
from sbkernels.testing import FAMILIES, PackedInputs, assert_error_rule, attend_masked

HEAD_DIM = 128
NEVER = 2.0
Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Sequences and a budget."""

    lengths: tuple[int, ...]
    block_size: int = 256
    top_k: int = 32
    num_heads: int = 16
    num_kv_heads: int = 2
    families: tuple[str, ...] = FAMILIES


def draw(case: Case, lengths: tuple[int, ...], family: str) -> PackedInputs:
    """Returns inputs of these lengths in the shape of the case."""
    return draw_inputs(
        lengths,
        num_heads=case.num_heads,
        num_kv_heads=case.num_kv_heads,
        head_dim=HEAD_DIM,
        family=family,
        seed=0,
    )


@contextmanager
def switched(*, share: float, sums_mib: int) -> Iterator[None]:
    """Sets the share from which first rows are dense, and the memory of the sums, for a while."""
    before = op.DENSE_SHARE, windows.SUMS_BYTES
    op.DENSE_SHARE, windows.SUMS_BYTES = share, sums_mib << 20
    try:
        yield
    finally:
        op.DENSE_SHARE, windows.SUMS_BYTES = before


def attend_call(
    case: Case,
    inputs: PackedInputs,
    *,
    bounded: bool,
    share: float = NEVER,
    sums_mib: int = 1 << 20,
    backward: bool = True,
    deterministic: bool = False,
) -> Call:
    """Returns a call of our attention; `bounded` promises the range of top_k."""
    top_k = torch.full((len(case.lengths),), case.top_k, dtype=torch.int32, device="cuda")
    promise = {"min_top_k": case.top_k, "max_top_k": case.top_k} if bounded else {}
    leaves = [x.detach().requires_grad_(backward) for x in (inputs.q, inputs.k, inputs.v)]

    def call() -> object:
        with switched(share=share, sums_mib=sums_mib):
            out = moba_attention(
                *leaves,
                inputs.cu_seqlens,
                top_k,
                block_size=case.block_size,
                max_seqlen=inputs.max_seqlen,
                deterministic=deterministic,
                **promise,
            )
            # The backward pass reads the switches as well.
            return torch.autograd.grad(out, leaves, inputs.grad_out) if backward else out

    return call


def select_call(case: Case, inputs: PackedInputs) -> Call:
    """Returns a call of the selection alone."""
    sizes = {"block_size": case.block_size, "max_seqlen": inputs.max_seqlen}
    top_k = torch.full((len(case.lengths),), case.top_k, dtype=torch.int32, device="cuda")
    return lambda: select_blocks(inputs.q, inputs.k, inputs.cu_seqlens, top_k, **sizes)


def obeys(case: Case, inputs: PackedInputs, gradients: Callable[[], Any]) -> bool:
    """Returns whether dq, dk and dv obey the error rule; prints how far off they are."""
    sizes = {"block_size": case.block_size, "max_seqlen": inputs.max_seqlen}
    selection = select_blocks(inputs.q, inputs.k, inputs.cu_seqlens, case.top_k, **sizes)
    exact = attend_masked(inputs.to(torch.float64), selection, scale=HEAD_DIM**-0.5)
    plain = attend_masked(inputs, selection, scale=HEAD_DIM**-0.5)
    right = True
    for name, ours, true, baseline in zip(
        ("dq", "dk", "dv"), gradients(), exact[1:], plain[1:], strict=True
    ):
        errors = [float((x.double() - true).abs().max()) for x in (ours, baseline)]
        print(f"{name}: largest error {errors[0]:.3g}, of plain bfloat16 {errors[1]:.3g}")
        try:
            assert_error_rule(name, ours, true, baseline)
        except AssertionError as error:
            print(f"RED, not timed: {error}", flush=True)
            right = False
    return right
