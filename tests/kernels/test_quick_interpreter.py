"""The interpreter replaces what it replaces by itself, the first time and when asked again."""

from typing import Any

import pytest
import triton.language as tl
from quick_interpreter import replace_known, search
from triton.runtime import interpreter

Replaced = list[tuple[str, object]]


def replaced_by(replace: Any, place: Any) -> tuple[Replaced, Replaced]:
    scope = interpreter._LangPatchScope()
    try:
        replace(place, interpreter.interpreter_builder, scope)
        first = [(name, original) for _, name, original in scope._changes]
        replace(place, interpreter.interpreter_builder, scope)
        return first, [(name, original) for _, name, original in scope._changes[len(first) :]]
    finally:
        scope.restore()


@pytest.mark.parametrize("place", [tl, tl.core, tl.tensor, tl.math], ids=lambda p: p.__name__)
def test_the_same_builtins_are_replaced(place: Any) -> None:
    first, again = replaced_by(replace_known, place)
    assert first, "nothing was replaced"
    assert again == []
    assert (first, again) == replaced_by(search, place)
