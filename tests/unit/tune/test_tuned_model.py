"""Tuning inside a model: what it must not change, and recomputation that decides nothing anew."""

import numpy as np
import pytest
import torch

from sbcore.attention import AttentionCall
from sbcore.config.training import ModelShape
from sbcore.model.build import build_model, shape_config
from sbcore.model.layers import decoder_layers
from sbcore.model.recompute import Recompute
from sbcore.tune.clamp import ClampLimits, TargetBudgets
from sbcore.tune.ladder import make_ladder
from sbcore.tune.ledger import collect

LENGTHS, BLOCK_SIZE, TOP_K = (300, 75, 128), 16, 4
LADDER = make_ladder(-(-max(LENGTHS) // BLOCK_SIZE), TOP_K)
SHAPE = ModelShape(
    hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2
)
FIXED = np.full((2, len(LENGTHS)), TOP_K)
TUNED = np.array([[2, 9, 4], [7, 1, 3]])


class Plain:
    """The budget k0 and nothing else: no account, no curve."""

    top_k_range = (TOP_K, TOP_K)

    def top_k(self, layer, q, k, call, *, means=None):
        return torch.full((len(LENGTHS),), TOP_K, dtype=torch.int32)


def budgets_of(targets, *, limits=None, measure=False):
    return TargetBudgets(
        targets=torch.tensor(targets, dtype=torch.int32),
        sequences=(0, 1, 2),
        ladder=torch.tensor(LADDER, dtype=torch.int32),
        rungs=tuple(LADDER.tolist()),
        top_k0=TOP_K,
        limits=limits,
        measure=measure,
        dense=False,
    )


def train(budgets, *, recompute="none"):
    """Returns the loss and all gradients of one forward and backward pass.

    ``recompute`` is a mode of the trainer, or `library` for the library's own checkpointing.
    """
    model = build_model(
        shape_config(SHAPE, vocab_size=97, max_tokens=512), seed=0, dtype=torch.float32
    ).train()
    if recompute == "library":
        model.gradient_checkpointing_enable()
    else:
        Recompute(decoder_layers(model), recompute, above_tokens=0).prepare(sum(LENGTHS))
    keep = recompute != "none"
    ids = torch.randint(0, 97, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None]
    ends = torch.tensor([0, *np.cumsum(LENGTHS)], dtype=torch.int32)
    call = AttentionCall(ends, LENGTHS, BLOCK_SIZE, "torch", budgets, keep_choices=keep)
    logits = model(input_ids=ids, position_ids=positions, use_cache=False, sb_call=call).logits
    loss = logits.square().mean()
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters()]


def assert_same_bits(left, right):
    assert torch.equal(left[0], right[0])
    assert all(torch.equal(a, b) for a, b in zip(left[1], right[1], strict=True))


@pytest.mark.parametrize("measure", [False, True])
def test_a_tuner_that_is_off_changes_no_bit(measure):
    assert_same_bits(train(budgets_of(FIXED, measure=measure)), train(Plain()))


def test_limits_that_allow_nothing_are_as_good_as_off():
    limits = ClampLimits(p=0.1, floor=TOP_K, cap=TOP_K)
    assert_same_bits(train(budgets_of(TUNED, limits=limits)), train(Plain()))


@pytest.mark.parametrize("recompute", ["full", "selective", "library"])
def test_recomputation_uses_the_budgets_and_choices_of_the_first_forward(recompute):
    limits = ClampLimits(p=0.05, floor=1, cap=int(LADDER[-1]))
    plain, recomputed = (budgets_of(TUNED, limits=limits) for _ in range(2))
    assert_same_bits(train(plain), train(recomputed, recompute=recompute))
    ledgers = [collect([budgets]).result()[0] for budgets in (plain, recomputed)]
    np.testing.assert_array_equal(ledgers[0].top_k, ledgers[1].top_k)
    np.testing.assert_array_equal(ledgers[0].curves, ledgers[1].curves)
    assert (ledgers[0].top_k != FIXED).any(), "nothing was tuned"
