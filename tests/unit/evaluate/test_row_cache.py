"""What a model in packs is asked with, and how its cache is written and read."""

from types import SimpleNamespace

import pytest
import torch

from sbcore.attention import AttentionCall, register_attention
from sbcore.config.compute import AttentionConfig
from sbcore.evaluate import row_cache
from sbcore.evaluate.packed_model import PackedModel
from sbcore.evaluate.row_cache import Budget, RowCache

LENGTHS = (3, 6)
ATTENTION = AttentionConfig(block_size=4, top_k=2, backend="reference")


def draw(heads, num_tokens, num_rows=1):
    generator = torch.Generator().manual_seed(heads + num_tokens)
    return torch.randn(num_rows, heads, num_tokens, 8, generator=generator)


def cache_of(sparse=None):
    return RowCache.empty(LENGTHS, max_new_tokens=2, device=torch.device("cpu"), sparse=sparse)


@pytest.mark.parametrize("sparse", [None, Budget(block_size=4, top_k=1)])
def test_the_scale_of_the_library_is_that_of_the_scores(sparse):
    """While prompts are read, and of each new token."""
    register_attention()
    ends = torch.tensor([0, 3, 9], dtype=torch.int32)
    module, outs = SimpleNamespace(layer_idx=0), []
    for scale, factor in ((0.7, 1.0), (None, 0.7 * 8**0.5)):
        rows = cache_of(sparse)
        q, k, v = factor * draw(4, 9), draw(2, 9), draw(2, 9) + 1
        call = AttentionCall(ends, LENGTHS, 4, "torch", None)
        words = {"scaling": scale, "sb_rows": rows}
        read, _ = row_cache._attend(module, q, k, v, None, sb_call=call, **words)
        rows.begin_token()
        new = factor * draw(4, 1, 2), draw(2, 1, 2), draw(2, 1, 2) - 1
        outs.append((read, row_cache._attend(module, *new, None, **words)[0]))
    for one, other in zip(*outs, strict=True):
        torch.testing.assert_close(one, other)


class Recording:
    """A model of bfloat16 that keeps what it is asked with."""

    device = torch.device("cpu")

    def __init__(self):
        self.asked = []

    def __call__(self, **words):
        self.asked.append(words)
        return SimpleNamespace(logits=torch.zeros(1, 2, 9, dtype=torch.bfloat16))


def test_logits_are_float32_and_calls_name_the_backend():
    packed = PackedModel(Recording(), ATTENTION, 2, decodes_sparsely=False)
    prompts = [[5] * length for length in LENGTHS]
    rows = cache_of()
    assert packed.read(prompts, rows).dtype == torch.float32
    assert packed.step(torch.tensor([1, 2]), rows).dtype == torch.float32
    call = packed.model.asked[0]["sb_call"]
    assert (call.backend, call.block_size, call.lengths) == ("reference", 4, LENGTHS)
    assert packed.model.asked[1].get("sb_call") is None


@pytest.mark.parametrize(
    ("top_k", "decodes_sparsely", "sparse"),
    [(2, True, Budget(4, 2)), (2, False, None), (None, True, None), (None, False, None)],
)
def test_new_tokens_have_a_budget_where_prompts_have_one_and_decoding_is_sparse(
    top_k, decodes_sparsely, sparse
):
    packed = PackedModel(Recording(), ATTENTION, top_k, decodes_sparsely)
    assert packed.empty_rows([[1, 2]], max_new_tokens=3).sparse == sparse
