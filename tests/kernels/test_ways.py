"""Which way each sequence takes on a CPU: dense, dense with a mask, or tiles."""

import pytest
import torch

from sbkernels import moba_attention
from sbkernels.moba import torch_backend
from sbkernels.testing import assert_close, make_inputs

WAYS = ("attend_dense", "attend_dense_masked", "attend_tiles")


@pytest.fixture
def taken(monkeypatch):
    """Returns the lengths that went each way, in order."""
    lengths = {way: [] for way in WAYS}

    def spy(way):
        inner = getattr(torch_backend, way)

        def attend(first, *rest, **options):
            sequences = [part[0] for part in first] if way == "attend_tiles" else [first]
            lengths[way] += [queries.shape[0] for queries in sequences]
            return inner(first, *rest, **options)

        return attend

    for way in WAYS:
        monkeypatch.setattr(torch_backend, way, spy(way))
    return lengths


def inputs_of(lengths):
    return make_inputs(
        lengths,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        family="iid",
        seed=0,
        dtype=torch.float64,
        device="cpu",
    )


def attend(inputs, top_k):
    return moba_attention(
        inputs.q,
        inputs.k,
        inputs.v,
        inputs.cu_seqlens,
        top_k,
        block_size=32,
        max_seqlen=inputs.max_seqlen,
        backend="torch",
    )


def test_length_and_budget_decide(taken):
    attend(inputs_of((600, 64, 0, 300, 128, 65, 513)), 4)
    assert taken["attend_dense"] == [64, 0, 128, 65]  # at most 4 blocks
    assert taken["attend_dense_masked"] == [300]  # 128 of 300 tokens is more than a third
    assert taken["attend_tiles"] == [600, 513]


def test_above_512_tokens_a_mask_costs_more_than_tiles(taken):
    attend(inputs_of((512, 513)), 6)  # 192 tokens, more than a third of both
    assert taken["attend_dense_masked"] == [512]
    assert taken["attend_tiles"] == [513]


def test_a_small_budget_takes_tiles_at_any_length(taken):
    attend(inputs_of((600, 100, 33)), 1)
    assert taken["attend_tiles"] == [600, 100]
    assert taken["attend_dense_masked"] == [33]


def test_the_ways_agree(monkeypatch):
    inputs = inputs_of((300, 40, 513))
    mixed = attend(inputs, 4)
    for masked in (True, False):
        monkeypatch.setattr(torch_backend, "_masks", lambda *_a, _masked=masked, **_o: _masked)
        assert_close("out", attend(inputs, 4), mixed, tolerance=1e-13)
