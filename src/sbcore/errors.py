"""The one error type that users see: one line that says where, what, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class SparseBalanceError(ValueError):
    """Bad input from the user; the command line prints it as one line and exits with 2.

    The message reads ``place: key = value: what is wrong. what to do.``
    """


class ConfigError(SparseBalanceError):
    """All wrong values of one configuration, a line each."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Returns the sentence for a name that is not in a table, with near names offered."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return f"{kind} = '{name}': unknown. {hint}Available: {', '.join(names)}."
