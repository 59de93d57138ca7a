"""What is run before the first step compiles all kernels that the steps will want."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

from sbcore.attention import interface
from sbcore.attention.call import AttentionCall, FixedBudgets
from sbcore.attention.interface import attend_layer, suit_one_by_one
from sbcore.train.sizes import one_of_each_size, packs_of
from sbkernels.moba.triton import forward

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="counts in the interpreter")
BLOCK_SIZE, MAX_TOKENS, NUM_STEPS, GLOBAL_BATCH = 64, 2048, 12, 8


def key(kernel, args, options):
    """Returns what a kernel is compiled for: types, alignment, kinds of numbers, constants."""
    free = kernel.kwargs["do_not_specialize"] or ()
    parts = []
    for name, value in zip(kernel.arg_names, args, strict=False):
        if isinstance(value, torch.Tensor):
            parts.append((name, value.dtype, value.data_ptr() % 16 == 0))
        elif isinstance(value, int) and name not in free:
            parts.append((name, value == 1, value % 16 == 0, value >= 2**31))
    return kernel.fn.__name__, *parts, *sorted(options.items())


@pytest.fixture
def compiled(monkeypatch):
    """Returns the set of kernels met; nothing runs, so values are what memory held."""
    met = set()

    def launch(self, *args, grid, warmup, **options):
        met.add(key(self, args, options))

    monkeypatch.setattr(interpreter.InterpretedFunction, "run", launch)
    # As on a GPU, where short sequences that budgets cover are one call of ours.
    monkeypatch.setattr(
        interface, "_suits_one_call", lambda q, call: not suit_one_by_one(call.lengths)
    )
    # Long sequences and full packs take the gather, too; the shortest of their size may not.
    monkeypatch.setattr(forward, "SMALL_WORK_FLOPS", 2 * 1000 * 4 * 64 * 1000)
    return met


def run(lengths, *, top_k, known):
    num_tokens = sum(lengths)
    q, k, v = (
        torch.empty(num_tokens, heads, 64, dtype=torch.bfloat16, requires_grad=True)
        for heads in (4, 2, 2)
    )
    budgets = FixedBudgets.of(top_k, len(lengths), "cpu")
    budgets = budgets if known else FixedBudgets(budgets.value)
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    call = AttentionCall(ends, tuple(lengths), BLOCK_SIZE, "triton", budgets)
    out = attend_layer(0, q, k, v, call=call, scale=None)
    out.backward(torch.empty_like(out))


def packs_in(steps, rng):
    """Returns two packs of each global batch, cut where it comes, of what fits."""
    halves = [np.split(lengths, [int(rng.integers(1, GLOBAL_BATCH))]) for lengths in steps]
    fitting = [half[np.cumsum(half) <= MAX_TOKENS].tolist() for pair in halves for half in pair]
    return [pack for pack in fitting if pack]


@pytest.mark.parametrize("longest", [MAX_TOKENS, 500])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("top_k", [4, 16])  # 16: what it covers is narrower than all other
def test_no_step_wants_a_kernel_that_was_not_rehearsed(top_k, known, longest, compiled):
    rng = np.random.default_rng(3)
    drawn = rng.lognormal(5.0, 1.2, (NUM_STEPS, GLOBAL_BATCH))
    steps = np.clip(drawn, 1, longest).astype(int)
    packs = packs_in(steps, rng)
    plan = SimpleNamespace(num_steps=NUM_STEPS, step=lambda i: SimpleNamespace(lengths=steps[i]))
    run(max(packs, key=sum), top_k=top_k, known=known)
    for step, place in one_of_each_size(plan).values():
        limits = {"max_tokens": MAX_TOKENS, "max_sequences": 0, "covered": top_k * BLOCK_SIZE}
        for pack in packs_of(steps[step], place, **limits):
            run(steps[step][list(pack)].tolist(), top_k=top_k, known=known)
    rehearsed = set(compiled)
    names = {name for name, *_ in rehearsed}
    assert {"_select_kernel", "_forward_union_kernel", "_backward_gather_kernel"} <= names
    assert "_forward_gather_kernel" in names or longest < MAX_TOKENS or top_k > 4
    for pack in packs:
        run(pack, top_k=top_k, known=known)
    assert {name for name, *_ in compiled - rehearsed} == set()
