"""Bookkeeping of a pipeline run in MLflow: open, close, mark as failed or ended."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sbcore.cli.options import Out, StageConfig

_Tracking = Annotated[Path, typer.Option(help="The run's tracking.json.")]


def open_run(*, config: StageConfig, out: Out) -> None:
    """Open the pipeline's MLflow run and write its ids to OUT/tracking.json."""
    from sbcore import tracking
    from sbcore.config.load import load_stage
    from sbcore.config.stages import RunStage

    reference = tracking.open_run(load_stage(config, RunStage), out=out)
    sys.stdout.write(f"open-run: {reference.uri if reference.enabled else 'nothing is tracked'}\n")


def close_run(
    *,
    config: StageConfig,
    run_dir: Annotated[Path, typer.Option(help="The run's folder.")],
    out: Annotated[Path, typer.Option(help="File to write the compare page's address to.")],
) -> None:
    """Write the report's numbers to MLflow and close the pipeline's run."""
    from sbcore import tracking
    from sbcore.artifacts import write_json
    from sbcore.config.load import load_stage
    from sbcore.config.stages import RunStage

    page = tracking.close_run(load_stage(config, RunStage), run_dir=run_dir)
    write_json(out, {"compare_page": page})
    sys.stdout.write(f"close-run: report at {run_dir}/report/index.html\n")


def fail_run(*, tracking: _Tracking) -> None:
    """Mark the pipeline's run in MLflow as failed."""
    from sbcore.tracking import fail_run as mark_failed

    mark_failed(tracking)


def end_run(*, tracking: _Tracking) -> None:
    """Mark the pipeline's run in MLflow as finished if it is still open."""
    from sbcore.tracking import end_run as mark_finished

    mark_finished(tracking)


COMMANDS = (open_run, close_run, fail_run, end_run)
