"""What is wrong with the words of a call, as one line, where Typer would draw a box."""

import sys
from itertools import takewhile
from typing import Any

import typer

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Parent of all mistakes in commands and options; Typer does not export it."""


def run_app(app: typer.Typer) -> None:
    """Runs a command and exits with its code; with 2 and one line where its words are wrong."""
    try:
        code = app(standalone_mode=False)
    except UsageError as error:
        if line := describe_usage(error):
            sys.stderr.write(f"{line}\n")
        code = 2
    sys.exit(code)


def describe_usage(error: Any) -> str:
    """Returns `sb plan: missing --index, --out. what it takes: sb plan --help`.

    Nothing where no words were given at all: then the help has been shown already.
    """
    command = error.ctx.command_path if error.ctx else _words_before_options()
    what = _missing(error) or " ".join(error.format_message().split()).rstrip(".")
    if not what:
        return ""
    end = "" if what.endswith("?") else "."
    return f"{command}: {what[0].lower()}{what[1:]}{end} what it takes: {command} --help"


def _words_before_options() -> str:
    """Returns the call's beginning: an option at its end has no context in Typer."""
    return " ".join(["sb", *takewhile(lambda word: not word.startswith("-"), sys.argv[1:])])


def _missing(error: Any) -> str:
    """Returns all that a command needs and was not given; Typer names the first alone."""
    if type(error).__name__ != "MissingParameter":
        return ""
    asked = [one for one in error.ctx.command.params if one.required]
    names = [one.opts[0] for one in asked if one.name not in error.ctx.params]
    return f"missing {', '.join(names)}"
