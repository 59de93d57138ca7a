"""Triton's interpreter, which looks for what it replaces once.

Before every launch, and whenever a jitted function calls another, it goes through all members of
`triton.language` for builtins to replace: a fifth of the time of these tests. Which members are
builtins does not change.
"""

import inspect
from functools import cache
from typing import Any

from triton.language.core import is_builtin
from triton.runtime import interpreter

search = interpreter._patch_builtin


def search_once() -> None:
    """Makes the interpreter remember the builtins; when and for how long it replaces them stays."""
    interpreter._patch_builtin = replace_known


def replace_known(place: Any, builder: Any, scope: Any) -> None:
    """Does what `search` does."""
    for name in _builtins(place):
        member = getattr(place, name)
        if is_builtin(member):  # is not replaced yet
            interpreter._patch_attr(place, name, member, builder, scope)


@cache
def _builtins(place: Any) -> tuple[str, ...]:
    """Returns the names; asked for first before anything is replaced there."""
    return tuple(name for name, member in inspect.getmembers(place) if is_builtin(member))
