"""Ends the pipeline's run where no report closes it: a call that failed, or asked for a part."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sbcore.tracking.guard import one_line, warn
from sbcore.tracking.reference import TrackingReference, read_reference
from sbcore.tracking.store import NOTE, open_client

if TYPE_CHECKING:
    from mlflow import MlflowClient

_NO_REPORT = (
    "No report has closed this run: its last call asked for some of the files only. "
    "A call for the whole pipeline goes on with it."
)


@contextmanager
def pipeline_store(reference: TrackingReference) -> Iterator["MlflowClient"]:
    """Yields a client of the store that holds the pipeline's run; its failure is one warning."""
    try:
        yield open_client(reference.uri)
    # Whatever a tracking library throws, the stages' files are done.
    except Exception as failure:
        warn(f"{reference.uri}: {one_line(failure)}. the pipeline's run stays open there.")


def fail_run(tracking_file: Path) -> None:
    """Marks the pipeline's run as failed; raises SparseBalanceError where the file is missing."""
    reference = read_reference(tracking_file)
    if reference.enabled:
        with pipeline_store(reference) as client:
            client.set_terminated(reference.run_id, "FAILED")


def end_run(tracking_file: Path) -> None:
    """Marks the pipeline's run as finished if it is still open, as after a call for some files.

    A run that its report closed stays as it is; one that no report ever closed says so. Raises
    SparseBalanceError where the file is missing.
    """
    reference = read_reference(tracking_file)
    if not reference.enabled or _was_closed(tracking_file):
        return
    with pipeline_store(reference) as client:
        run = client.get_run(reference.run_id)
        if run.info.status != "RUNNING":
            return
        if NOTE not in run.data.tags:
            client.set_tag(reference.run_id, NOTE, _NO_REPORT)
        client.set_terminated(reference.run_id, "FINISHED")


def _was_closed(tracking_file: Path) -> bool:
    """Returns whether a report closed the run since it was opened, without asking the store."""
    closed = tracking_file.with_name("closed.json")
    return closed.exists() and closed.stat().st_mtime_ns > tracking_file.stat().st_mtime_ns
