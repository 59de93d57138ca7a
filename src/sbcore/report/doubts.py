"""What should make a reader doubt the numbers, each found in the files by a rule."""

from collections.abc import Iterator

import numpy as np

from sbcore.report.collect import RunRecord
from sbcore.report.compare import Row

_FEW_STEPS = 20
_LARGE_ERROR = 0.2
_LARGE_RATIO = 1.5
_SHARED_INPUTS = ("index", "latency", "tasks")
"""Inputs that all variants must have in common."""


def doubts(record: RunRecord, rows: list[Row]) -> list[str]:
    """Returns sentences, the gravest first; none means that no rule found anything."""
    return [
        *_unfinished(rows),
        *_provenance(record),
        *_different_inputs(record),
        *_partial(record),
        *_few_steps(rows),
        *_uneven_machine(record),
        *_slower_than_predicted(record),
        *_prediction(record),
        *_loss(record),
        *_chance(record),
    ]


def _unfinished(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        if row.missing:
            yield f"{row.variant} is unfinished: no results of {', '.join(row.missing)}."


def _provenance(record: RunRecord) -> Iterator[str]:
    manifests = record.manifests
    if not manifests or any(m.commit is None for m in manifests.values()):
        yield "The commit of the code is unknown for some stages."
    commits = {m.commit for m in manifests.values() if m.commit}
    if len(commits) > 1:
        short = ", ".join(sorted(commit[:7] for commit in commits))
        yield f"Stages were run by different commits of the code ({short})."
    dirty = [path for path, m in manifests.items() if m.dirty]
    if dirty:
        yield f"The code had uncommitted edits in {len(dirty)} of {len(manifests)} stages."
    devices = {m.device for path, m in manifests.items() if path.endswith("train/manifest.json")}
    if len(devices) > 1:
        yield f"Variants were trained on different devices ({', '.join(sorted(devices))})."


def _different_inputs(record: RunRecord) -> Iterator[str]:
    for name in _SHARED_INPUTS:
        digests = {m.inputs[name] for m in record.manifests.values() if name in m.inputs}
        if len(digests) > 1:
            yield f"Stages read different versions of {name}; rerun those with older files."


def _partial(record: RunRecord) -> Iterator[str]:
    for variant in record.variants:
        result = variant.evaluation
        if result and result.partial:
            yield f"{variant.variant} was evaluated in part: its mean score covers fewer tasks."
        elif result and result.num_examples != result.num_available:
            yield f"{variant.variant} was evaluated on some of the tasks' examples only."


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


def _over_predicted(record: RunRecord) -> dict[str, float]:
    """Returns by variant how many times as long as predicted its median step took."""
    return {
        variant.variant: float(np.median((steps.step_ms / steps.predicted_ms)[steps.measured]))
        for variant in record.variants
        if variant.training is not None
        for steps in [variant.training.steps]
    }


def _loss(record: RunRecord) -> Iterator[str]:
    for variant in record.variants:
        if variant.training is None:
            continue
        loss = variant.training.steps.loss
        head = float(np.nanmean(loss[: max(1, len(loss) // 10)]))
        skipped = int(np.isnan(loss).sum())
        if skipped:
            yield f"{skipped} steps of {variant.variant} had no finite loss and were skipped."
        if variant.training.summary.loss_final >= head:
            yield f"The loss of {variant.variant} did not fall."


def _chance(record: RunRecord) -> Iterator[str]:
    for variant in record.variants:
        result = variant.evaluation
        if result is None or not result.chance:
            continue
        if all(result.scores[task] <= chance for task, chance in result.chance.items()):
            yield f"{variant.variant} scores no better than chance in all tasks."
