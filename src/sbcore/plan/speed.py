"""Speed factors as plans take them: rounded, so that noise changes no plan and a log is enough."""

from collections.abc import Sequence

from sbcore.latency.speed import QUANTUM


def quantised(factors: Sequence[float]) -> tuple[float, ...]:
    """Returns speed factors in multiples of 1/32, none where all ranks are as predicted."""
    rounded = tuple(round(factor / QUANTUM) * QUANTUM for factor in factors)
    return () if all(factor == 1.0 for factor in rounded) else rounded
