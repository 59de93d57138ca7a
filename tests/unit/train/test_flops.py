import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbcore.train.flops import ModelFacts, attended_pairs, count, peak_flops

FACTS = ModelFacts(
    layer_weights=100,
    trained_weights=100,
    weights_again=70,
    head_weights=10,
    num_layers=2,
    num_heads=3,
    head_dim=4,
)


@given(st.integers(1, 150), st.integers(1, 12), st.integers(1, 20))
def test_pairs_are_those_that_queries_attend_to(length, top_k, block_size):
    each = (
        t % block_size + 1 + min(top_k - 1, t // block_size) * block_size for t in range(length)
    )
    found = attended_pairs(np.array([length]), np.array([[top_k]]), block_size=block_size)
    assert found[0, 0] == sum(each)


def work(lengths, top_k, *, recomputed, attention_again=True):
    lengths = np.array(lengths)
    return count(
        FACTS,
        lengths,
        np.full((2, len(lengths)), top_k),
        block_size=4,
        num_target_tokens=5,
        recomputed=np.full(len(lengths), float(recomputed)),
        attention_again=attention_again,
    )


def test_with_all_blocks_useful_is_dense():
    found = work([16, 7], 8, recomputed=False)
    assert found.useful == found.dense_equivalent == found.executed
    pairs = 16 * 17 / 2 + 7 * 8 / 2
    assert found.useful == 6 * 100 * 23 + 6 * 10 * 5 + 2 * 12 * 3 * 4 * pairs


def test_smaller_budgets_are_less_work_of_the_same_tokens():
    few, many = work([16], 1, recomputed=False), work([16], 4, recomputed=False)
    assert few.useful < many.useful
    assert few.dense_equivalent == many.dense_equivalent


def test_recomputation_is_executed_but_not_useful():
    once, twice = (work([16], 2, recomputed=again) for again in (False, True))
    assert twice.useful == once.useful
    without = work([16], 2, recomputed=True, attention_again=False)
    assert without.executed == pytest.approx(once.executed + 2 * 70 * 16)
    assert twice.executed > without.executed


def test_a_peak_is_known_by_the_devices_name():
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("CPU AMD EPYC (2 cores)") is None
