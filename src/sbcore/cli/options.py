"""Options that several commands share, so that each is spelled and explained once."""

from pathlib import Path
from typing import Annotated

import typer

StageConfig = Annotated[
    Path,
    typer.Option("--config", help="This stage's part of the configuration (`sb freeze`)."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
TrackingFile = Annotated[
    Path | None,
    typer.Option("--tracking", help="The run's tracking.json; without it nothing is tracked."),
]
