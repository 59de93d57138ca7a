"""A stage's own run: opened and closed around its work."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sbcore.artifacts import git_state, package_versions
from sbcore.tracking.guard import Guard, one_line
from sbcore.tracking.reference import TrackingReference, read_reference
from sbcore.tracking.seam import NoTracker, Tracker
from sbcore.tracking.store import MlflowTracker


@contextmanager
def stage_tracker(
    tracking_file: Path | None, *, stage: str, variant: str | None
) -> Iterator[Tracker]:
    """Yields the stage's run under the pipeline's, FINISHED or FAILED with the block.

    None tracks nothing (a stage used alone). Only rank 0 opens one.
    """
    tracker = make_tracker(None if tracking_file is None else read_reference(tracking_file))
    tracker.start(f"{stage}/{variant}" if variant else stage, run_tags(stage, variant))
    try:
        yield tracker
    except KeyboardInterrupt:
        tracker.end("KILLED", error="interrupted")
        raise
    except BaseException as error:
        tracker.end("FAILED", error=one_line(error))
        raise
    tracker.end("FINISHED", error=None)


def make_tracker(reference: TrackingReference | None) -> Tracker:
    """Returns a tracker under the reference's run, or the one that tracks nothing."""
    if reference is None or not reference.enabled:
        return NoTracker()
    child = MlflowTracker(
        reference.uri, experiment_id=reference.experiment_id, parent_run_id=reference.run_id
    )
    return Guard(child)


def run_tags(stage: str, variant: str | None) -> dict[str, str]:
    """Returns what a run is found by and what its code was."""
    git = git_state()
    versions = {f"version.{name}": version for name, version in package_versions().items()}
    return {
        "kind": "stage",
        "stage": stage,
        "variant": variant or "",
        "commit": str(git["commit"]),
        "dirty": str(git["dirty"]).lower(),
        "mlflow.source.name": f"sb {stage}",
        "mlflow.source.git.commit": str(git["commit"]),
        "mlflow.user": getpass.getuser(),
        **versions,
    }
