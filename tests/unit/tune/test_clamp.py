import numpy as np
import torch

from sbcore.attention.call import AttentionCall
from sbcore.tune.clamp import TargetBudgets
from sbcore.tune.ladder import make_ladder

LADDER = make_ladder(32, 4)
LENGTHS = (512, 200)


def call_of(budgets):
    ends = torch.tensor([0, *np.cumsum(LENGTHS)], dtype=torch.int32)
    return AttentionCall(ends, LENGTHS, block_size=16, backend="reference", budgets=budgets)


def budgets_of(targets, *, p, measure=False, dense=False):
    return TargetBudgets(
        targets=torch.tensor(targets, dtype=torch.int32),
        ladder=torch.tensor(LADDER, dtype=torch.int32),
        top_k0=4,
        p=p,
        measure=measure,
        dense=dense,
        rungs=tuple(LADDER.tolist()),
    )


def query_and_key(seed=0):
    torch.manual_seed(seed)
    return torch.randn(sum(LENGTHS), 2, 16), torch.randn(sum(LENGTHS), 1, 16)


def test_a_target_within_the_bounds_is_used_as_it_is():
    budgets = budgets_of([[3, 5]], p=0.5)
    assert budgets.top_k(0, *query_and_key(), call_of(budgets)).tolist() == [3, 5]


def test_what_a_layer_cannot_cut_is_carried_to_the_next():
    budgets = budgets_of([[1, 4], [4, 4]], p=1e-4)
    call = call_of(budgets)
    first = budgets.top_k(0, *query_and_key(), call)
    second = budgets.top_k(1, *query_and_key(), call)
    assert first.tolist() == [4, 4]
    assert second[0] <= 4
    loose = budgets_of([[1, 4], [4, 4]], p=1e-4)
    loose.top_k(0, *query_and_key(), call_of(loose))
    loose.p = 0.9
    assert loose.top_k(1, *query_and_key(), call_of(loose))[0] == 1


def test_without_p_nothing_is_clamped_nor_measured():
    budgets = budgets_of([[1, 30]], p=None)
    assert budgets.top_k(0, *query_and_key(), call_of(budgets)).tolist() == [1, 30]
    assert budgets.records[0].curve is None


def test_dense_only_measures():
    budgets = budgets_of([[32, 32]], p=None, measure=True, dense=True)
    assert budgets.top_k(0, *query_and_key(), call_of(budgets)) is None
    assert budgets.records[0].curve.shape == (2, len(LADDER))


def test_curves_that_are_not_finite_keep_k0():
    query, key = query_and_key()
    key[0] = float("nan")
    budgets = budgets_of([[1, 1]], p=0.5)
    used = budgets.top_k(0, query, key, call_of(budgets))
    assert used[0] == 4
