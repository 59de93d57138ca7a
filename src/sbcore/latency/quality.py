"""How good predictions are: their error, their order, and what plans made with them lose."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapreplace

import numpy as np

from sbcore.latency.additive import AdditiveLatency
from sbcore.latency.fit import budgets_of, lengths_of, predicted_work
from sbcore.latency.table import MeasuredPoint
from sbcore.types import FloatArray

_BATCHES, _BATCH, _RANKS = 200, 16, 4
"""Regret is the mean over this many random global batches of this size on this many ranks."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Error on points that were left out of the fit; shares, not percent."""

    mape: float
    """Of one layer's attention at all budgets."""
    rank_correlation: float
    mape_at_top_k: float
    """At the configured budget, which plans are made at."""
    regret: float
    """At the configured budget."""
    micro_batch_mape: float | None
    """Of the whole model on packed micro-batches, floor and constant included; None without any."""
    num_points: int
    num_micro_batches: int


def measure_quality(
    parts: AdditiveLatency,
    attention: Sequence[MeasuredPoint],
    whole: AdditiveLatency,
    micro_batches: Sequence[MeasuredPoint],
    *,
    work_share: FloatArray,
    top_k: int,
    block_size: int,
    seed: int,
) -> Quality:
    """Returns the quality on held-out points.

    Of `parts` on one layer's attention without its call, of `whole` on micro-batches.
    """
    truth = np.array([p.median_ms for p in attention])
    lengths, budgets = lengths_of(attention), budgets_of(attention)
    predicted = parts.attention_ms(lengths, budgets)
    used = budgets == np.minimum(top_k, -(-lengths // block_size))
    predicted_whole = predict_micro_batches(whole, micro_batches, work_share=work_share)
    together = np.array([p.median_ms for p in micro_batches])
    return Quality(
        mape=mape(predicted, truth),
        rank_correlation=rank_correlation(predicted, truth),
        mape_at_top_k=mape(predicted[used], truth[used]),
        regret=regret(predicted[used], truth[used], seed=seed),
        micro_batch_mape=mape(predicted_whole, together) if micro_batches else None,
        num_points=len(attention),
        num_micro_batches=len(micro_batches),
    )


def predict_micro_batches(
    model: AdditiveLatency, points: Sequence[MeasuredPoint], *, work_share: FloatArray
) -> FloatArray:
    """Returns the predicted time of each point's packed sequences, work times its share. [P]."""
    work = np.maximum(work_share * predicted_work(model, points), model.floor_ms)
    times: FloatArray = work + model.constant_ms
    return times


def mape(predicted: FloatArray, truth: FloatArray) -> float:
    """Returns the mean absolute error relative to the truth."""
    return float(np.mean(np.abs(predicted / truth - 1.0)))


def rank_correlation(predicted: FloatArray, truth: FloatArray) -> float:
    """Returns Spearman's rank correlation, -1..1; 0 where all predictions or times are the same."""
    ranks = _ranks(predicted), _ranks(truth)
    if any(np.ptp(each) == 0 for each in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def regret(predicted: FloatArray, truth: FloatArray, *, seed: int) -> float:
    """Returns the time of plans made with predictions over that of plans made with the truth, - 1.

    Global batches are drawn from the points, laid out greedily (LPT) over ranks, and both plans
    are timed with the truth.
    """
    rng = np.random.default_rng(seed)
    batches = rng.integers(0, len(truth), size=(_BATCHES, _BATCH))
    made = sum(_greedy_time(predicted[batch], truth[batch]) for batch in batches)
    ideal = sum(_greedy_time(truth[batch], truth[batch]) for batch in batches)
    return made / ideal - 1.0


def _greedy_time(weights: FloatArray, truth: FloatArray) -> float:
    """Returns the true time of the plan that LPT makes with the weights."""
    heap = [(0.0, rank) for rank in range(_RANKS)]
    times = [0.0] * _RANKS
    for i in np.argsort(-weights, kind="stable").tolist():
        load, rank = heap[0]
        heapreplace(heap, (load + float(weights[i]), rank))
        times[rank] += float(truth[i])
    return max(times)


def _ranks(values: FloatArray) -> FloatArray:
    """Returns the rank of each value, equal ones the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: FloatArray = (last - (counts - 1) / 2.0)[inverse]
    return ranks
