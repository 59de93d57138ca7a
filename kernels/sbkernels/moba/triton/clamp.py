"""The clamp of one layer: what tuning asked for, moved to where coverage allows it.

It runs inside the launch that measures the curve. With k0 = ``ladder[base_rung]``, the range begins
at the first rung with C(k) >= C(k0) - p and ends at the first with C(k) >= min(C(k0) + p, max C),
not below k0; both are brought within floor and cap. Where the curve is not finite both are k0.

Shapes: L layers, N sequences, K rungs of the ladder (rounded up to a power of two), S sequences
rounded up to a multiple of 4.
"""

import triton
import triton.language as tl

ALIGNMENT = tl.constexpr(4)
"""Every layer's budgets start at 16 bytes: kernels would compile anew for other addresses."""


@triton.jit
def clamp_sequence(
    curve,
    ladder,
    targets_ptr,
    budgets_ptr,
    carry_ptr,
    layer,
    sequence,
    num_sequences,
    num_rungs,
    base_rung,
    p,
    floor,
    cap,
    K: tl.constexpr,
):
    """Writes the layer's budget of one sequence, int32 [L, S], and updates its carry, int32 [N].

    ``curve`` float32 [K] and ``ladder`` int32 [K] are in registers, targets int32 [L, S] in memory.
    """
    rung = tl.arange(0, K)
    inside = rung < num_rungs
    finite = tl.abs(curve) < float("inf")
    known = tl.sum(tl.where(inside & (finite == 0), 1, 0)) == 0
    base = tl.sum(tl.where(rung == base_rung, curve, 0.0))
    goal = tl.minimum(base + p, tl.max(tl.where(inside, curve, -float("inf"))))
    fixed = tl.sum(tl.where(rung == base_rung, ladder, 0))
    low = tl.where(known, _first_rung(curve, ladder, base - p, inside), fixed)
    high = tl.where(known, tl.maximum(_first_rung(curve, ladder, goal, inside), fixed), fixed)
    low = tl.minimum(tl.maximum(low, floor), cap)
    high = tl.minimum(tl.maximum(high, floor), cap)

    stride = (num_sequences + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    here = layer * stride + sequence
    wanted = tl.load(targets_ptr + here) - tl.load(carry_ptr + sequence)
    used = tl.minimum(tl.maximum(wanted, low), high)
    tl.store(budgets_ptr + here, used)
    tl.store(carry_ptr + sequence, used - wanted)


@triton.jit
def _first_rung(curve, ladder, goal, inside):
    """Returns the budget of the first rung that covers the goal: the ladder rises.

    Of a goal that is not covered, something that the caller replaces: the curve is not finite then.
    """
    return tl.min(tl.where((curve >= goal) & inside, ladder, 1 << 30))
