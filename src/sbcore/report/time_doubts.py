"""What should make a reader doubt times and predictions of times."""

from collections.abc import Iterator

import numpy as np

from sbcore.report.collect import RunRecord
from sbcore.report.compare import Row

_FEW_STEPS = 20
_LARGE_ERROR = 0.2
_LARGE_RATIO = 1.5
_SHORT, _MOST = 1.25, 0.5


def doubts_of_times(record: RunRecord, rows: list[Row]) -> Iterator[str]:
    """Yields sentences, the gravest first."""
    yield from _few_steps(rows)
    yield from _uneven_machine(record)
    yield from _slower_than_predicted(record)
    yield from _host_bound(record)
    yield from _prediction(record)


def _few_steps(rows: list[Row]) -> Iterator[str]:
    counts = [row.speedup.num_steps for row in rows if row.speedup]
    if counts and min(counts) < _FEW_STEPS:
        yield f"Speedups rest on {min(counts)} steps; medians of so few are uncertain."


def _prediction(record: RunRecord) -> Iterator[str]:
    if record.latency and record.latency.head.error.mape > _LARGE_ERROR:
        error = 100 * record.latency.head.error.mape
        yield f"The latency model errs by {error:.0f} % on points that it was not fitted to."
    extrapolating = [v.variant for v in record.variants if v.plan and v.plan.extrapolated]
    if extrapolating:
        names = ", ".join(extrapolating)
        yield f"Plans predict beyond the longest measured length ({names})."


def _uneven_machine(record: RunRecord) -> Iterator[str]:
    """Variants are trained one after the other, and something else may run beside one of them."""
    ratios = _over_predicted(record)
    if not ratios:
        return
    least, most = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    if ratios[most] > _LARGE_RATIO * ratios[least]:
        yield (
            f"Measured over predicted step time is {ratios[least]:.1f} for {least} and "
            f"{ratios[most]:.1f} for {most}: unless the latency table misses what tells them "
            "apart, the machine was not equally fast for all variants, and speedups hold that too."
        )


def _slower_than_predicted(record: RunRecord) -> Iterator[str]:
    slow = [
        f"{variant} {ratio:.1f} times"
        for variant, ratio in _over_predicted(record).items()
        if ratio > _LARGE_RATIO
    ]
    if slow:
        yield (
            f"Steps take longer than predicted ({', '.join(slow)}): "
            "balancing and tuning aimed at something else than this machine's time."
        )


def _host_bound(record: RunRecord) -> Iterator[str]:
    """Micro-batches that hardly differ in time, whatever is in them."""
    if record.latency is None:
        return
    empty_ms = record.latency.head.empty_ms
    shares = {
        variant.variant: float((variant.training.spans["predicted_ms"] < _SHORT * empty_ms).mean())
        for variant in record.variants
        if variant.training is not None
    }
    found = [f"{name} {100 * share:.0f} %" for name, share in shares.items() if share > _MOST]
    if found:
        yield (
            f"Most micro-batches should take hardly longer than an empty one, {empty_ms:.0f} ms "
            f"({', '.join(found)}): what launching costs the host hides what balancing and tuning "
            "change. Longer ones help: topology.max_tokens, sampling.global_batch."
        )


def _over_predicted(record: RunRecord) -> dict[str, float]:
    """Returns by variant how many times as long as predicted its median step took."""
    return {
        variant.variant: float(np.median((steps.step_ms / steps.predicted_ms)[steps.measured]))
        for variant in record.variants
        if variant.training is not None
        for steps in [variant.training.steps]
    }
