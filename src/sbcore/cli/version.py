"""`sb --version`: which version is installed, and which commit it is."""

import sys
from typing import Annotated

import typer

from sbcore import __version__


def _show(asked: bool) -> None:
    if not asked:
        return
    from sbcore.artifacts import git_state

    git = git_state()
    edits = " with edits" if git["dirty"] else ""
    commit = f"commit {git['commit']}{edits}" if git["commit"] else "no git checkout"
    sys.stdout.write(f"sparsebalance {__version__}, {commit}\n")
    raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Print version and commit.", callback=_show, is_eager=True),
]


def everywhere(*, version: Version = False) -> None:
    """Takes what can be said without a command; it acts by itself."""
