"""The nearest table that rises in both directions."""

import numpy as np

from sbcore.types import FloatArray

_MAX_SWEEPS = 20
"""Alternations between rows and columns; measured tables settle in two or three."""


def isotonic(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Returns the non-decreasing sequence nearest to values by weighted squares. [n] -> [n].

    Neighbours that fall are pooled to their weighted mean (pool adjacent violators).
    """
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, total, count = value, weight, 1
        while pools and pools[-1][0] > mean:
            before, its_weight, its_count = pools.pop()
            mean = (before * its_weight + mean * total) / (its_weight + total)
            total, count = total + its_weight, count + its_count
        pools.append((mean, total, count))
    return np.repeat([pool[0] for pool in pools], [pool[2] for pool in pools])


def monotone(table: FloatArray, weights: FloatArray) -> FloatArray:
    """Returns a table that rises along both axes, near to the one given. [n, m] -> [n, m]."""
    table = table.copy()
    for _ in range(_MAX_SWEEPS):
        before = table.copy()
        for i in range(table.shape[0]):
            table[i] = isotonic(table[i], weights[i])
        for j in range(table.shape[1]):
            table[:, j] = isotonic(table[:, j], weights[:, j])
        if np.array_equal(table, before):
            break
    rising: FloatArray = np.maximum.accumulate(np.maximum.accumulate(table, axis=0), axis=1)
    return rising
