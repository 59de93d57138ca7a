"""What a layer's attention is given by the library, hands to budgets and kernels, and returns."""

from types import SimpleNamespace

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from sbcore.attention import AttentionCall, interface


def qkv(num_rows=1, num_tokens=80):
    """Returns q, k and v as the library hands them over, of 4 query and 2 key heads."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(num_rows, num_tokens, heads, 8, generator=generator).transpose(1, 2)
        for heads in (4, 2, 2)
    ]


def layer_of(top_k):
    """Returns a model's layer 5, whose configuration has this budget."""
    settings = {"block_size": 16, "backend": "reference", "top_k": top_k}
    return SimpleNamespace(layer_idx=5, config=SimpleNamespace(sparsebalance=settings))


@pytest.mark.parametrize("top_k", [2, None])
def test_the_scale_of_the_library_is_that_of_the_scores(top_k):
    q, k, v = qkv()
    scaled, _ = interface._attend(layer_of(top_k), q, k, v, None, scaling=0.7)
    usual, _ = interface._attend(layer_of(top_k), 0.7 * 8**0.5 * q, k, v, None)
    torch.testing.assert_close(scaled, usual)
    one_more = [q[:, :, -1:], k, v]
    scaled, _ = interface._attend(layer_of(top_k), *one_more, None, scaling=0.7)
    usual, _ = interface._attend(layer_of(None), 0.7 * 8**0.5 * q, k, v, None)
    torch.testing.assert_close(scaled, usual[:, -1:])


@pytest.mark.parametrize("top_k", [2, None])
def test_rows_of_generation_take_the_models_budget_and_not_each_others(top_k):
    rows = qkv(num_rows=3)
    together, _ = interface._attend(layer_of(top_k), *rows, None)
    assert together.shape == (3, 80, 4, 8)
    for row, out in enumerate(together):
        alone, _ = interface._attend(layer_of(top_k), *(x[row : row + 1] for x in rows), None)
        torch.testing.assert_close(out, alone[0])
    call = interface._call_of_rows(layer_of(top_k), rows[0])
    assert (call.cu_seqlens.tolist(), call.lengths) == ([0, 80, 160, 240], (80, 80, 80))
    assert (call.block_size, call.backend) == (16, "reference")
    assert (call.budgets and call.budgets.value.tolist()) == (top_k and [top_k] * 3)


def call_of(num_tokens, backend, budgets):
    ends = torch.tensor([0, num_tokens], dtype=torch.int32)
    return AttentionCall(ends, (num_tokens,), 16, backend, budgets)


class Watching:
    """Notes what it is asked with; its answer is the least budget it may give."""

    def __init__(self, least, most):
        self.top_k_range, self.asked = (least, most), []

    def top_k(self, layer, q, k, call, *, means=None):
        has_means = means is not None
        self.asked.append((layer, q.shape[1], k.shape[1], has_means, torch.is_grad_enabled()))
        return torch.full((len(call.lengths),), self.top_k_range[0], dtype=torch.int32)


@pytest.mark.parametrize(("least", "has_means"), [(2, True), (5, False)])
def test_budgets_are_asked_for_each_layer_also_where_all_is_covered(least, has_means):
    """They measure coverage there too; nothing of the choice is kept for a backward pass."""
    budgets = Watching(least, 20)
    call = call_of(80, "torch", budgets)
    interface._attend(layer_of(None), *qkv(), None, sb_call=call)
    assert budgets.asked == [(5, 4, 2, has_means, False)]
    assert call.choices == {}, "kept for a recomputation alone"


def test_the_kernels_are_told_the_calls_budgets_and_backend_and_given_dense_keys(monkeypatch):
    told = []

    def told_by(function):
        def run(*args, **options):
            told.append((args, options))
            return function(*args, **options)

        return run

    for name in ("select_blocks", "moba_attention"):
        monkeypatch.setattr(interface, name, told_by(getattr(interface, name)))
    call = call_of(80, "reference", Watching(2, 3))
    q, *keys_and_values = qkv()
    k, v = torch.cat(keys_and_values, -1).split(8, -1)  # as one projection of both gives them
    interface._attend(layer_of(None), q, k, v, None, sb_call=call)
    (_, select), ((_, k, v, *_), attend) = told
    assert (select["min_top_k"], select["max_top_k"]) == (2, 3)
    assert select["backend"] == attend["backend"] == "reference"
    assert k.is_contiguous()
    assert v.is_contiguous()


@pytest.mark.parametrize(
    ("backend", "is_cuda", "lengths", "one_call"),
    [
        ("reference", False, (70,), True),
        ("torch", False, (10, 10, 10), False),
        ("auto", True, (10, 10, 10), True),
        ("auto", True, (10, 10), False),
    ],
)
def test_covered_packs_are_one_call_on_gpus_where_short_and_always_for_the_reference(
    backend, is_cuda, lengths, one_call
):
    call = AttentionCall(torch.empty(0), lengths, 16, backend, None)
    assert interface._suits_one_call(SimpleNamespace(is_cuda=is_cuda), call) == one_call


def test_compiled_layers_leave_the_attention_as_it_is(monkeypatch):
    compiling = []

    def attend(layer, q, *_, **__):
        compiling.append(torch.compiler.is_compiling())
        return q

    monkeypatch.setattr(interface, "attend_layer", attend)
    interface.register_attention()
    registered = ALL_ATTENTION_FUNCTIONS[interface.ATTENTION_NAME]
    call = call_of(80, "torch", None)
    layer, rows = layer_of(None), qkv()
    torch.compile(lambda: registered(layer, *rows, None, sb_call=call)[0] + 1, backend="eager")()
    assert compiling == [False]
