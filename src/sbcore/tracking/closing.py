"""Closes the pipeline's run with the numbers that variants are compared by.

MLflow's run table does not show a parent's children beside another's, so the numbers stand
twice: on the pipeline's run (`sab/speedup`) and on one child per variant (`speedup`), which also
holds the variant's settings. Compare the runs with the tags `kind = variant`, `current = true`.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sbcore.artifacts import read_json
from sbcore.config.stages import RunStage
from sbcore.tracking.ending import pipeline_store
from sbcore.tracking.note import describe_run
from sbcore.tracking.reference import FILE_NAME, TrackingReference, read_reference
from sbcore.tracking.stage import make_tracker, run_tags
from sbcore.tracking.store import MAX_METRICS, NOTE, chunks

Numbers = Mapping[str, float]

_NO_TRACES = "workflowType=machine_learning"
"""MLflow's pages are those of language model applications unless told."""


def close_run(config: RunStage, *, run_dir: Path) -> str | None:
    """Writes the report's numbers to the pipeline's run and to a run per variant, closes it.

    Returns the path of MLflow's page that compares the variants' runs, None when not tracked.
    """
    reference = read_reference(run_dir / FILE_NAME)
    if not reference.enabled:
        return None
    rows = read_json(run_dir / "report" / "summary.json")["variants"]
    headlines = {row["variant"]: headline_metrics(row) for row in rows}
    run_ids = []
    for variant, numbers in headlines.items():
        run_id = _variant_run(reference, variant, numbers, config=config, run_dir=run_dir)
        if run_id is None:
            return None  # the store is dead, as its warning said
        run_ids.append(run_id)
    page = _compare_page(run_ids, reference.experiment_id)
    report = str(run_dir / "report" / "index.html")
    note = describe_run(rows, compare_page=page, report=report)
    _finish(reference, headlines=headlines, note=note)
    return page


def headline_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns a summary row's numbers, nested ones with a slash, those not known left out."""
    numbers: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            numbers |= {f"{key}/{name}": x for name, x in headline_metrics(value).items()}
        elif isinstance(value, int | float):
            numbers[key] = float(value)
    return numbers


def _variant_run(
    reference: TrackingReference, variant: str, numbers: Numbers, *, config: RunStage, run_dir: Path
) -> str | None:
    tracker = make_tracker(reference)
    tags = run_tags("variant", variant) | {"kind": "variant"} | _stage_runs(run_dir, variant)
    tracker.start(f"variant/{variant}", tags)
    tracker.params(_settings(config, variant))
    tracker.metrics(numbers, step=0)
    tracker.end("FINISHED", error=None)
    return tracker.run_id


def _stage_runs(run_dir: Path, variant: str) -> dict[str, str]:
    """Returns the runs that the variant's numbers come from, by their stages' folders."""
    runs = {}
    for stage in ("plan", "train", "eval"):
        manifest = run_dir / "variants" / variant / stage / "manifest.json"
        run_id = read_json(manifest)["mlflow_run_id"] if manifest.exists() else None
        if run_id:
            runs[f"run_id.{stage}"] = run_id
    return runs


def _settings(config: RunStage, variant: str) -> dict[str, Any]:
    """Returns what tells a variant from another, and the setting that they share.

    MLflow's comparison begins with the first three settings that differ, by name: those that say
    most have names of their own, and all of a variant's stand under `variant.`.
    """
    whole = config.config
    chosen = whole.variants[variant]
    all_of_it = chosen.model_dump(mode="json")
    return {
        "run": config.run,
        "variant": variant,
        **{f"variant.{name}": value for name, value in all_of_it.items()},
        "attention": chosen.attention,
        "balancer": chosen.balancer.kind,
        "tuner": chosen.tuner.kind,
        "block_size": whole.attention.block_size,
        "top_k": whole.attention.top_k,
        "num_ranks": whole.topology.num_ranks,
        "barrier": whole.topology.barrier.value,
        "global_batch": whole.sampling.global_batch,
    }


def _finish(reference: TrackingReference, *, headlines: Mapping[str, Numbers], note: str) -> None:
    with pipeline_store(reference) as client:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(f"{variant}/{name}", x, now, 0)
            for variant, numbers in headlines.items()
            for name, x in numbers.items()
        ]
        for chunk in chunks(metrics, MAX_METRICS):
            client.log_batch(reference.run_id, metrics=chunk)
        client.set_tag(reference.run_id, NOTE, note)
        client.set_terminated(reference.run_id, "FINISHED")


def _compare_page(run_ids: list[str], experiment_id: str) -> str:
    runs, experiments = quote(json.dumps(run_ids)), quote(json.dumps([experiment_id]))
    return f"/#/compare-runs?runs={runs}&experiments={experiments}&{_NO_TRACES}"
