"""What surrounds every stage: tracking, time, manifest, progress and one closing line."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from sbcore.config.section import Section
    from sbcore.tracking import Tracker


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of a stage: what it is called, reads and writes."""

    name: str
    """As in the manifest and in MLflow, e.g. ``profile-lengths``."""
    variant: str | None
    """The variant's name, None for stages that all variants share."""
    inputs: Mapping[str, Path]
    """Files and folders whose digests go into the manifest."""
    manifest: Path
    """Where the manifest is written."""
    tracking: Path | None
    """The run's tracking.json; None tracks nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage did, for its manifest, MLflow and the reader at the terminal."""

    sentence: str
    """One line with the numbers that matter."""
    device: str
    """What computed."""
    backend: str
    """The implementation that really ran."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """Numbers for MLflow."""
    artifacts: tuple[Path, ...] = ()
    """Files for MLflow."""


def run_stage(
    stage: Stage, config: "Section", work: "Callable[[Progress, Tracker], Outcome]"
) -> None:
    """Runs the work as a tracked stage and writes its manifest, last of all."""
    from sbcore.artifacts import write_manifest
    from sbcore.cli.progress import make_progress
    from sbcore.tracking import stage_tracker

    started = time.perf_counter()
    with stage_tracker(stage.tracking, stage=stage.name, variant=stage.variant) as tracker:
        tracker.params(config.model_dump(mode="json"))
        with make_progress() as progress:
            outcome = work(progress, tracker)
        seconds = time.perf_counter() - started
        tracker.metrics({**outcome.metrics, "seconds": seconds}, step=0)
        write_manifest(
            stage.manifest,
            stage=stage.name,
            config=config.model_dump_json(),
            inputs=stage.inputs,
            device=outcome.device,
            backend=outcome.backend,
            seconds=seconds,
            mlflow_run_id=tracker.run_id,
        )
        for path in (*outcome.artifacts, stage.manifest):
            tracker.artifact(path)
    of = f" {stage.variant}" if stage.variant else ""
    sys.stdout.write(f"{stage.name}{of}: {outcome.sentence} ({seconds:.1f} s)\n")
