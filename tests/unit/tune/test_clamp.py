import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sbcore.attention.call import AttentionCall
from sbcore.tune.clamp import ClampLimits, TargetBudgets
from sbcore.tune.coverage import budget_bounds
from sbcore.tune.ladder import make_ladder
from sbcore.tune.layer_clamp import clamp_range
from sbcore.tune.ledger import collect
from sbkernels import coverage_curve

LADDER = make_ladder(32, 4)
LENGTHS = (512, 200)


def limits_of(p, *, floor=1, cap=32):
    return ClampLimits(p=p, floor=floor, cap=cap)


def call_of(budgets):
    ends = torch.tensor([0, *np.cumsum(LENGTHS)], dtype=torch.int32)
    return AttentionCall(ends, LENGTHS, block_size=16, backend="reference", budgets=budgets)


def budgets_of(targets, *, limits, measure=False, dense=False, sequences=(0, 1)):
    return TargetBudgets(
        targets=torch.tensor(targets, dtype=torch.int32),
        sequences=sequences,
        ladder=torch.tensor(LADDER, dtype=torch.int32),
        rungs=tuple(LADDER.tolist()),
        top_k0=4,
        limits=limits,
        measure=measure,
        dense=dense,
    )


def query_and_key(seed=0):
    torch.manual_seed(seed)
    return torch.randn(sum(LENGTHS), 2, 16), torch.randn(sum(LENGTHS), 1, 16)


def test_a_target_within_the_bounds_is_used_as_it_is():
    budgets = budgets_of([[3, 5]], limits=limits_of(0.5))
    assert budgets.top_k(0, *query_and_key(), call_of(budgets)).tolist() == [3, 5]


def own_blocks_only():
    """Returns queries and keys with nearly all routing mass in the own block."""
    block = torch.cat([torch.arange(n) // 16 for n in LENGTHS])
    key = 8.0 * torch.eye(32)[block][:, None]
    return key.expand(-1, 2, -1), key


def test_a_dummy_has_no_range_of_budgets():
    assert budgets_of(np.zeros((2, 0)), limits=None, sequences=()).top_k_range is None


def test_what_is_covered_wholly_is_not_raised_further():
    limits = ClampLimits(p=0.9, floor=1, cap=8)
    assert clamp_range([0.5, 0.75, 1.0, 1.0], [1, 2, 4, 8], base_rung=0, limits=limits) == (1, 4)


def test_what_a_layer_cannot_cut_is_carried_to_the_next():
    budgets = budgets_of([[1, 4], [4, 4]], limits=limits_of(0.1))
    call = call_of(budgets)
    alike = torch.zeros(sum(LENGTHS), 2, 32), torch.zeros(sum(LENGTHS), 1, 32)
    assert budgets.top_k(0, *alike, call).tolist() == [3, 4]
    assert budgets.top_k(1, *own_blocks_only(), call).tolist() == [2, 4]


@given(rates=st.lists(st.floats(0.01, 2.0), min_size=1, max_size=5), p=st.floats(0.02, 0.5))
def test_a_layer_has_the_range_that_the_step_controller_reckons_with(rates, p):
    curves = np.array([1 - np.exp(-rate * LADDER) for rate in rates])
    curves /= curves[:, -1:]
    low, high = budget_bounds(curves, LADDER, top_k=4, p=p)
    base, rungs = int(np.searchsorted(LADDER, 4)), LADDER.tolist()
    for n, curve in enumerate(curves.tolist()):
        limits = limits_of(p, floor=2, cap=20)
        wanted = tuple(np.clip([low[n], high[n]], 2, 20).tolist())
        assert clamp_range(curve, rungs, base_rung=base, limits=limits) == wanted


@given(
    seed=st.integers(0, 9),
    p=st.floats(0.001, 0.9),
    floor=st.integers(1, 6),
    cap=st.integers(6, 32),
    targets=st.lists(st.tuples(st.integers(1, 32), st.integers(1, 32)), min_size=3, max_size=3),
)
def test_floor_and_cap_hold_after_clamp_and_carry(seed, p, floor, cap, targets):
    budgets = budgets_of(targets, limits=limits_of(p, floor=floor, cap=cap))
    call = call_of(budgets)
    for layer in range(3):
        used = budgets.top_k(layer, *query_and_key(seed), call)
        assert (floor <= used).all()
        assert (used <= cap).all()


def test_without_limits_nothing_is_clamped_nor_measured():
    budgets = budgets_of([[1, 30]], limits=None)
    assert budgets.top_k(0, *query_and_key(), call_of(budgets)).tolist() == [1, 30]
    (part,) = collect([budgets]).result()
    assert part.curves is None
    assert part.top_k.tolist() == part.top_k_target.tolist() == [[1, 30]]


def test_the_host_knows_the_range_of_budgets_that_no_layer_moves():
    assert budgets_of([[3, 9], [2, 4]], limits=None).top_k_range == (2, 9)
    assert budgets_of([[3, 9], [2, 4]], limits=limits_of(0.1)).top_k_range is None


def test_dense_only_measures():
    budgets = budgets_of([[32, 32]], limits=None, measure=True, dense=True)
    assert budgets.top_k(0, *query_and_key(), call_of(budgets)) is None
    (part,) = collect([budgets]).result()
    assert part.curves.shape == (1, 2, len(LADDER))
    assert part.top_k.tolist() == [[32, 32]]


def test_measuring_does_not_change_a_budget():
    measured = budgets_of([[1, 30]], limits=None, measure=True)
    assert measured.top_k(0, *query_and_key(), call_of(measured)).tolist() == [1, 30]


def test_curves_that_are_not_finite_keep_k0():
    query, key = query_and_key()
    key[0] = float("nan")
    budgets = budgets_of([[1, 1]], limits=limits_of(0.5))
    used = budgets.top_k(0, query, key, call_of(budgets))
    assert used[0] == 4


def test_the_ledger_has_what_every_layer_used_and_saw():
    targets = [[1, 4], [30, 2], [3, 9]]
    budgets = budgets_of(targets, limits=limits_of(0.05))
    call = call_of(budgets)
    inputs = [query_and_key(seed) for seed in range(3)]
    used = [budgets.top_k(layer, *inputs[layer], call).tolist() for layer in range(3)]
    dummy = budgets_of(targets, limits=None, sequences=())
    (part,) = collect([budgets, dummy]).result()
    assert part.sequences == (0, 1)
    assert part.top_k_target.tolist() == targets
    assert part.top_k.tolist() == used
    assert part.top_k.dtype == np.int64
    curve = coverage_curve(
        *inputs[1],
        call.cu_seqlens,
        block_size=16,
        max_seqlen=512,
        ladder=budgets.rungs,
        row_stride=32,
        backend="reference",
    )
    np.testing.assert_array_equal(part.curves[1], curve.double().numpy())


@pytest.mark.parametrize("num_sequences", [1, 2, 5])
def test_every_layer_hands_out_budgets_at_sixteen_bytes(num_sequences):
    budgets = budgets_of(np.full((3, num_sequences), 4), limits=None)
    rows = [budgets.top_k(layer, *query_and_key(), call_of(budgets)) for layer in range(3)]
    assert all(row.data_ptr() % 16 == 0 for row in rows)
