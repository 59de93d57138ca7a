"""What only a CUDA device can show: a tuned step never waits, and its account arrives whole."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sbcore.attention import ATTENTION_NAME, AttentionCall, register_attention
from sbcore.tune.clamp import ClampLimits, TargetBudgets
from sbcore.tune.ladder import make_ladder
from sbcore.tune.layer_clamp import clamp_range
from sbcore.tune.ledger import collect

pytestmark = pytest.mark.gpu
LENGTHS, BLOCK_SIZE, TOP_K = (3000, 700, 64), 64, 8
LADDER = make_ladder(-(-max(LENGTHS) // BLOCK_SIZE), TOP_K)
LIMITS = ClampLimits(p=0.05, floor=2, cap=40)
TARGETS = [[3, 12, 8], [20, 2, 8]]


@pytest.fixture
def packed():
    """Returns q, k, v as the library hands them over, boundaries, and the ladder on the device."""
    generator = torch.Generator("cuda").manual_seed(0)
    shapes = [(1, heads, sum(LENGTHS), 64) for heads in (4, 2, 2)]
    q, k, v = (
        torch.randn(shape, generator=generator, device="cuda", dtype=torch.bfloat16)
        for shape in shapes
    )
    ends = torch.tensor([0, *np.cumsum(LENGTHS)], dtype=torch.int32, device="cuda")
    ladder = torch.tensor(LADDER, dtype=torch.int32, device="cuda")
    return [x.requires_grad_() for x in (q, k, v)], ends, ladder


def train_two_layers(packed):
    """Queues a tuned forward and backward pass; returns the pending ledger and its budgets."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    (q, k, v), ends, ladder = packed
    budgets = TargetBudgets(
        targets=torch.tensor(TARGETS, dtype=torch.int32),
        sequences=(0, 1, 2),
        ladder=ladder,
        rungs=tuple(LADDER.tolist()),
        top_k0=TOP_K,
        limits=LIMITS,
        measure=True,
        dense=False,
    )
    call = AttentionCall(ends, LENGTHS, BLOCK_SIZE, "auto", budgets)
    attend, out = ALL_ATTENTION_FUNCTIONS[ATTENTION_NAME], v
    for layer in range(2):
        module = SimpleNamespace(layer_idx=layer)
        out = attend(module, q, k, out, None, scaling=0.125, sb_call=call)[0]
        out = out.transpose(1, 2)[:, :2]  # [B, T, H, D] to values of the next layer
    out.float().square().mean().backward()
    return collect([budgets]), budgets


@pytest.fixture
def registered():
    register_attention()


def test_a_tuned_step_of_two_layers_never_waits_for_the_device(packed, registered):
    train_two_layers(packed)[0].result()  # compiles, and copies constants once
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending, _ = train_two_layers(packed)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(pending.result()) == 1


def test_the_account_is_what_the_host_would_have_decided(packed, registered):
    pending, budgets = train_two_layers(packed)
    (part,) = pending.result()
    assert part.top_k_target.tolist() == TARGETS
    base, rungs = int(np.searchsorted(LADDER, TOP_K)), LADDER.tolist()
    carry = np.zeros(3, dtype=int)
    for layer in range(2):
        wanted = part.top_k_target[layer] - carry
        ranges = [
            clamp_range(curve, rungs, base_rung=base, limits=LIMITS)
            for curve in part.curves[layer].tolist()
        ]
        low, high = np.array(ranges).T
        np.testing.assert_array_equal(part.top_k[layer], np.clip(wanted, low, high))
        carry = part.top_k[layer] - wanted
    torch.cuda.synchronize()
    used, measured = budgets.views(budgets.account)
    np.testing.assert_array_equal(part.top_k, used.cpu().numpy())
    np.testing.assert_array_equal(part.curves, measured.cpu().double().numpy())
