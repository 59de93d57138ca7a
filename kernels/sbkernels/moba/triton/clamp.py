"""The clamp of one layer in one launch: what tuning asked for, moved to where coverage allows it.

Budgets, what is left over for the next layer, and the curve itself go to one buffer, so that a
single copy brings a micro-batch's account to the host.

Shapes: L layers, N sequences, K rungs of the ladder, S sequences rounded up to a multiple of 4.
"""

import torch
import triton
import triton.language as tl

SEQUENCES = 16
"""Sequences of one program."""

ALIGNMENT = 4
"""Every layer's budgets start at 16 bytes: kernels would compile anew for other addresses."""


def padded_sequences(num_sequences: int) -> int:
    """Returns S, the int32 words between the budgets of two layers."""
    return -(-num_sequences // ALIGNMENT) * ALIGNMENT


def account_words(num_layers: int, num_sequences: int, num_rungs: int) -> int:
    """Returns the int32 words of an account: budgets [L, S], then curves [L, N, K] as float32."""
    return num_layers * (padded_sequences(num_sequences) + num_sequences * num_rungs)


def clamp_budgets(
    curve: torch.Tensor,
    targets: torch.Tensor,
    *,
    ladder: torch.Tensor,
    carry: torch.Tensor,
    account: torch.Tensor,
    layer: int,
    base_rung: int,
    p: float,
    floor: int,
    cap: int,
) -> None:
    """Writes the layer's budgets and curve into the account, and updates the carry.

    With k0 = ``ladder[base_rung]``, the range begins at the first rung with C(k) >= C(k0) - p and
    ends at the first with C(k) >= min(C(k0) + p, max C), not below k0; both are brought within
    floor and cap. Where the curve is not finite both are k0. Reads nothing on the host.

    Args:
        curve: float32 [N, K], of this layer and micro-batch.
        targets: int32 [L, S].
        ladder: int32 [K], ascending.
        carry: int32 [N], blocks that earlier layers used beyond their targets.
        account: int32 [account_words(L, N, K)].
        layer: Row of targets.
        base_rung: Index of k0 in the ladder.
        p: Most coverage lost or gained, 0..1.
        floor: Least budget.
        cap: Greatest budget.
    """
    num_sequences, num_rungs = curve.shape
    _clamp_kernel[(triton.cdiv(num_sequences, SEQUENCES),)](
        curve,
        targets,
        ladder,
        carry,
        account,
        layer,
        targets.shape[0],
        num_sequences,
        num_rungs,
        base_rung,
        p,
        floor,
        cap,
        ALIGNMENT=ALIGNMENT,
        SEQUENCES=SEQUENCES,
        K=triton.next_power_of_2(num_rungs),
        num_warps=1,
    )


@triton.jit(
    do_not_specialize=[
        "layer",
        "num_layers",
        "num_sequences",
        "num_rungs",
        "base_rung",
        "p",
        "floor",
        "cap",
    ]
)
def _clamp_kernel(
    curve_ptr,
    targets_ptr,
    ladder_ptr,
    carry_ptr,
    account_ptr,
    layer,
    num_layers,
    num_sequences,
    num_rungs,
    base_rung,
    p,
    floor,
    cap,
    ALIGNMENT: tl.constexpr,
    SEQUENCES: tl.constexpr,
    K: tl.constexpr,
):
    """One program per group of sequences."""
    row = tl.program_id(0) * SEQUENCES + tl.arange(0, SEQUENCES)
    column = tl.arange(0, K)
    real, rung = row < num_sequences, column < num_rungs
    inside = real[:, None] & rung[None, :]
    at = row[:, None] * num_rungs + column[None, :]
    curve = tl.load(curve_ptr + at, mask=inside, other=0.0)
    ladder = tl.load(ladder_ptr + column, mask=rung, other=0)

    known = tl.sum(tl.where(tl.abs(curve) < float("inf"), 0, 1), axis=1) == 0
    base = tl.load(curve_ptr + row * num_rungs + base_rung, mask=real, other=0.0)
    best = tl.max(tl.where(inside, curve, -float("inf")), axis=1)
    goal = tl.minimum(base + p, best)
    low = _first_rung(curve, ladder, base - p, rung, K)
    fixed = tl.load(ladder_ptr + base_rung)
    high = tl.maximum(_first_rung(curve, ladder, goal, rung, K), fixed)
    low = tl.minimum(tl.maximum(tl.where(known, low, fixed), floor), cap)
    high = tl.minimum(tl.maximum(tl.where(known, high, fixed), floor), cap)

    stride = (num_sequences + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    here = layer * stride + row
    wanted = tl.load(targets_ptr + here, mask=real, other=0)
    wanted -= tl.load(carry_ptr + row, mask=real, other=0)
    used = tl.minimum(tl.maximum(wanted, low), high)
    tl.store(account_ptr + here, used, mask=real)
    tl.store(carry_ptr + row, used - wanted, mask=real)
    curves_ptr = account_ptr + num_layers * stride + layer * num_sequences * num_rungs
    tl.store(curves_ptr + at, curve.to(tl.int32, bitcast=True), mask=inside)


@triton.jit
def _first_rung(curve, ladder, goal, rung, K: tl.constexpr):
    """Returns the budget of the first rung that covers the goal; of a goal that is not covered, 0.

    The caller replaces the latter: it happens where the curve is not finite alone.
    """
    column = tl.arange(0, K)
    reached = (curve >= goal[:, None]) & rung[None, :]
    first = tl.min(tl.where(reached, column[None, :], K), axis=1)
    return tl.sum(tl.where(column[None, :] == first[:, None], ladder[None, :], 0), axis=1)
