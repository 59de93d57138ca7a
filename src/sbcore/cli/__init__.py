"""The command line `sb`: one command per stage, and a few for configuration and bookkeeping.

Commands import what they need when they run, so that `sb --help` answers at once.
"""

import sys

import typer

from sbcore.cli import (
    benchmarks,
    configuration,
    evaluation,
    inputs,
    profiles,
    runs,
    simulation,
    variants,
)
from sbcore.cli.usage import run_app
from sbcore.cli.version import everywhere
from sbcore.collector import collect_seldom
from sbcore.errors import SparseBalanceError

app = typer.Typer(
    help="Load-balanced long-context training with dynamic block-sparse attention.",
    epilog="Usually Snakemake calls these: `make run`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.callback()(everywhere)
for group in (inputs, profiles, variants, evaluation, benchmarks, simulation, runs):
    for command in group.COMMANDS:
        app.command()(command)
app.add_typer(configuration.app, name="config")
app.command()(configuration.freeze)


def main() -> None:
    """Runs a command; exits with 2 and a line per mistake on bad input, with 130 on Ctrl-C."""
    collect_seldom()
    try:
        run_app(app)
    except SparseBalanceError as error:
        _fail(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}. check the path, its rights and the disk.")


def _fail(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.exit(2)
