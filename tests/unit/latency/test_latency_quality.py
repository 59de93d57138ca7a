"""Errors, order, regret and the formula, each against something known."""

from collections.abc import Callable

import numpy as np
import pytest

from sbcore.latency.analytic import AnalyticLatencyModel, fit_coefficients
from sbcore.latency.pairs import attention_pairs
from sbcore.latency.quality import (
    _greedy_time,
    mape,
    measure_quality,
    predict_micro_batches,
    rank_correlation,
    regret,
)
from sbcore.latency.table import MeasuredPoint

BLOCK_SIZE = 32


def points_of(law: Callable[[int, int], float], lengths: tuple[int, ...]) -> list[MeasuredPoint]:
    return [
        MeasuredPoint("attention", length, top_k, 1, *[law(length, top_k)] * 3, 3, True)
        for length in lengths
        for top_k in [k for k in (1, 2, 4, 8) if k * BLOCK_SIZE < length] + [-(-length // 32)]
    ]


def pairs_by_loop(length: int, top_k: int, block_size: int) -> int:
    total = 0
    for query in range(length):
        own = query // block_size
        total += min(top_k - 1, own) * block_size + query % block_size + 1
    return total


@pytest.mark.parametrize("block_size", [1, 4, 32])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 100, 256])
@pytest.mark.parametrize("top_k", [1, 2, 5, 300])
def test_pairs_are_those_of_the_loop(length: int, top_k: int, block_size: int) -> None:
    counted = attention_pairs(np.array([length]), np.array([top_k]), block_size=block_size)
    assert counted[0] == pairs_by_loop(length, top_k, block_size)


def test_the_formula_finds_the_coefficients_it_was_made_of() -> None:
    made = AnalyticLatencyModel(BLOCK_SIZE, 2, 0.0, 0.0, 0.0, np.array([0.3, 1e-3, 2e-5, 4e-6]))

    def law(length: int, top_k: int) -> float:
        return float(made.attention_ms(np.array(length), np.array(top_k)))

    found = fit_coefficients(points_of(law, (64, 128, 256, 512, 1024)), block_size=BLOCK_SIZE)
    assert found == pytest.approx(made.coefficients, rel=1e-6)


def test_the_formula_has_no_negative_coefficients() -> None:
    def law(length: int, top_k: int) -> float:
        return 5.0 - 1e-3 * length

    assert (
        fit_coefficients(points_of(law, (64, 128, 256, 512, 1024)), block_size=BLOCK_SIZE) >= 0
    ).all()


def test_errors_of_known_predictions() -> None:
    truth = np.array([1.0, 2.0, 4.0])
    assert mape(np.array([1.1, 1.8, 4.0]), truth) == pytest.approx(0.2 / 3)
    assert rank_correlation(truth**3, truth) == pytest.approx(1.0)
    assert rank_correlation(-truth, truth) == pytest.approx(-1.0)
    assert rank_correlation(np.ones(3), truth) == 0.0


def test_regret_is_nothing_for_the_truth_and_something_for_a_constant() -> None:
    truth = np.random.default_rng(0).lognormal(1.0, 1.0, size=30)
    assert regret(truth * 3.0, truth, seed=0) == 0.0
    assert regret(np.ones(30), truth, seed=0) > 0.05


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    """Ranks 1, 2.5, 2.5, 4 and 2, 1, 3, 4: Spearman's coefficient by its definition."""
    found = rank_correlation(np.array([1.0, 5.0, 5.0, 9.0]), np.array([2.0, 1.0, 3.0, 4.0]))
    assert found == pytest.approx(np.corrcoef([1, 2.5, 2.5, 4], [2, 1, 3, 4])[0, 1])


def test_a_plan_takes_the_longest_first_and_as_long_as_its_slowest_rank() -> None:
    """Four ranks, longest first: 9 | 8 | 7 | 6 + 1; taken for the shortest, 9 joins 8."""
    truth = np.array([1.0, 6.0, 7.0, 8.0, 9.0])
    assert _greedy_time(truth, truth) == 9.0
    assert _greedy_time(truth[::-1].copy(), truth) == 8.0 + 9.0
    assert _greedy_time(np.ones(9), np.full(9, 2.0)) == 6.0


def test_regret_is_that_of_plans_at_the_configured_budget() -> None:
    """Predictions are wrong at other budgets only."""
    made = AnalyticLatencyModel(BLOCK_SIZE, 2, 0.0, 0.0, 0.0, np.array([0.0, 1e-3, 2e-5, 0.0]))

    def law(length: int, top_k: int) -> float:
        return float(made.attention_ms(np.array(length), np.array(4))) if top_k == 4 else 1.0

    points = points_of(law, (362, 400, 724, 800, 900))
    found = measure_quality(
        made, points, made, [], work_share=np.ones(0), top_k=4, block_size=BLOCK_SIZE, seed=0
    )
    assert (found.regret, found.mape_at_top_k) == pytest.approx((0.0, 0.0))
    assert found.mape > 0.1
    assert found.micro_batch_mape is None


def test_a_micro_batchs_work_takes_its_share_before_the_floor() -> None:
    made = AnalyticLatencyModel(BLOCK_SIZE, 2, 5.0, 1.0, 1e-2, np.zeros(4))
    packs = [MeasuredPoint("micro_batch", n, 3, 2, 6.0, 6.0, 6.0, 3, True) for n in (400, 1000)]
    found = predict_micro_batches(made, packs, work_share=np.array([0.5, 0.75]))
    assert found == pytest.approx([5.0 + 1.0, 0.75 * 20 + 1.0])


def test_quality_is_that_of_the_points_given() -> None:
    made = AnalyticLatencyModel(BLOCK_SIZE, 2, 5.0, 1.0, 0.0, np.array([0.0, 1e-3, 2e-5, 0.0]))

    def law(length: int, top_k: int) -> float:
        off = 1.2 if top_k == 4 else 1.0
        return off * float(made.attention_ms(np.array(length), np.array(top_k)))

    points = points_of(law, (91, 362, 724))
    packs = [MeasuredPoint("micro_batch", 91, 3, 2, 6.0, 6.0, 6.0, 3, True)]
    found = measure_quality(
        made, points, made, packs, work_share=np.ones(1), top_k=4, block_size=BLOCK_SIZE, seed=0
    )
    assert found.num_points == len(points) == 13
    assert found.mape == pytest.approx((1 - 1 / 1.2) * 2 / 13)
    assert found.mape_at_top_k == pytest.approx((1 - 1 / 1.2) * 2 / 3)
    assert found.rank_correlation > 0.9
    assert found.micro_batch_mape == pytest.approx(0.0)  # on the floor: 5 + 1
