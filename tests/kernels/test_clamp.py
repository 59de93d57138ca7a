"""The clamp of a layer: the device does what the host's formula does."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from sbcore.tune.clamp import ALIGNMENT
from sbcore.tune.layer_clamp import ClampLimits, clamp_range
from sbkernels.moba.triton import clamp
from sbkernels.moba.triton.clamp import clamp_sequence

LADDER = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24])
BASE_RUNG, FLOOR, CAP = 5, 2, 16


def concave_curves(num_layers, num_sequences, *, seed):
    """Returns rising curves that end at 1, float32 [L, N, K]; some saturate early."""
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(-1.5, 1.0, (num_layers, num_sequences, 1)))
    curves = 1 - np.exp(-rate * LADDER)
    return (curves / curves[..., -1:]).astype(np.float32)


def clamped_by_hand(curve, wanted, *, p):
    """Returns the budget of one sequence, rung by rung."""
    if not np.isfinite(curve).all():
        low = high = LADDER[BASE_RUNG]
    else:
        base, p = curve[BASE_RUNG], np.float32(p)
        goal = min(base + p, curve.max())
        low = next(k for k, c in zip(LADDER, curve, strict=True) if c >= base - p)
        high = next(k for k, c in zip(LADDER, curve, strict=True) if c >= goal)
        high = max(high, LADDER[BASE_RUNG])
    low, high = np.clip([low, high], FLOOR, CAP)
    return min(max(wanted, low), high)


@triton.jit
def clamp_kernel(
    curves_ptr,
    ladder_ptr,
    targets_ptr,
    budgets_ptr,
    carry_ptr,
    layer,
    num_rungs,
    base_rung,
    p,
    floor,
    cap,
    K: tl.constexpr,
):
    """One program per sequence, with curves of any kind; training's come from its own program."""
    sequence, rung = tl.program_id(0), tl.arange(0, K)
    at = (layer * tl.num_programs(0) + sequence) * num_rungs + rung
    curve = tl.load(curves_ptr + at, mask=rung < num_rungs, other=0.0)
    ladder = tl.load(ladder_ptr + rung, mask=rung < num_rungs, other=0)
    clamp_sequence(
        curve,
        ladder,
        targets_ptr,
        budgets_ptr,
        carry_ptr,
        layer,
        sequence,
        tl.num_programs(0),
        num_rungs,
        base_rung,
        p,
        floor,
        cap,
        K,
    )


def run(curves, targets, *, p, device):
    """Returns the budgets [L, N] after all layers."""
    num_layers, num_sequences, num_rungs = curves.shape
    stride = -(-num_sequences // ALIGNMENT) * ALIGNMENT
    padded = torch.zeros((num_layers, stride), dtype=torch.int32)
    padded[:, :num_sequences] = torch.tensor(targets, dtype=torch.int32)
    targets = padded.to(device)
    budgets = torch.full_like(targets, -7)
    carry = torch.zeros(num_sequences, dtype=torch.int32, device=device)
    for layer in range(num_layers):
        clamp_kernel[(num_sequences,)](
            torch.tensor(curves, device=device),
            torch.tensor(LADDER, dtype=torch.int32, device=device),
            targets,
            budgets,
            carry,
            layer,
            num_rungs,
            BASE_RUNG,
            p,
            FLOOR,
            CAP,
            K=triton.next_power_of_2(num_rungs),
        )
    return budgets.cpu()[:, :num_sequences].numpy()


@pytest.mark.parametrize("num_sequences", [1, 3, 16, 37])
@pytest.mark.parametrize("p", [0.02, 0.1, 0.4])
def test_budgets_and_carry_are_those_made_by_hand(num_sequences, p, device):
    curves = concave_curves(3, num_sequences, seed=num_sequences)
    curves[1, 0, 4] = np.nan
    targets = np.random.default_rng(1).integers(1, 30, (3, num_sequences))
    budgets = run(curves, targets, p=p, device=device)
    carry = np.zeros(num_sequences, dtype=int)
    for layer, sequence in np.ndindex(targets.shape):
        wanted = targets[layer, sequence] - carry[sequence]
        used = clamped_by_hand(curves[layer, sequence], wanted, p=p)
        assert budgets[layer, sequence] == used, (layer, sequence)
        carry[sequence] = used - wanted


@pytest.mark.parametrize("p", [0.02, 0.1, 0.4])
def test_the_range_is_that_of_the_host(p, device):
    """Very small and very great targets end at the two ends of the range."""
    curves = concave_curves(1, 20, seed=3)
    curves[0, 7, 2] = np.nan
    limits = ClampLimits(p=p, floor=FLOOR, cap=CAP)
    ranges = [
        clamp_range(curve, LADDER.tolist(), base_rung=BASE_RUNG, limits=limits)
        for curve in curves[0].tolist()
    ]
    for target, bound in ((0, 0), (99, 1)):
        budgets = run(curves, np.full((1, 20), target), p=p, device=device)
        assert budgets[0].tolist() == [limit[bound] for limit in ranges]
    assert clamp.ALIGNMENT.value == ALIGNMENT


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_curves_that_are_not_finite_give_k0(value, device):
    curves = concave_curves(1, 2, seed=0)
    curves[0, 0] = value
    budgets = run(curves, [[1, 30]], p=0.5, device=device)
    assert budgets[0, 0] == LADDER[BASE_RUNG]
