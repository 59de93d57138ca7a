"""What should make a reader doubt the numbers, each found in the files by a rule."""

from collections.abc import Iterator

import numpy as np

from sbcore.report.collect import RunRecord
from sbcore.report.compare import Row
from sbcore.report.time_doubts import doubts_of_times

_SHARED_INPUTS = ("index", "latency", "tasks")
"""Inputs that all variants must have in common."""


def doubts(record: RunRecord, rows: list[Row]) -> list[str]:
    """Returns sentences, the gravest first; none means that no rule found anything."""
    return [
        *_unfinished(rows),
        *_provenance(record),
        *_different_inputs(record),
        *_partial(record),
        *doubts_of_times(record, rows),
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


def _loss(record: RunRecord) -> Iterator[str]:
    for variant in record.variants:
        if variant.training is None:
            continue
        loss = variant.training.steps.loss
        taken = loss[~np.isnan(loss)]
        if skipped := len(loss) - len(taken):
            steps, were = ("step", "was") if skipped == 1 else ("steps", "were")
            yield f"{skipped} {steps} of {variant.variant} had no finite loss and {were} skipped."
        head = taken[: max(1, len(taken) // 10)]
        if len(head) and variant.training.summary.loss_final >= head.mean():
            yield f"The loss of {variant.variant} did not fall."


def _chance(record: RunRecord) -> Iterator[str]:
    for variant in record.variants:
        result = variant.evaluation
        if result is None or not result.chance:
            continue
        if all(result.scores[task] <= chance for task, chance in result.chance.items()):
            yield f"{variant.variant} scores no better than chance in all tasks."
