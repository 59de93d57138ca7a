"""The interpreter replaces what it replaces by itself, the first time and when asked again."""

import os
import subprocess
import sys
from pathlib import Path

# In a process of its own: jitted functions that call others leave the language replaced.
PROGRAM = """
import triton.language as tl
from quick_interpreter import replace_known, search
from triton.runtime import interpreter


def replaced_by(replace, place):
    scope = interpreter._LangPatchScope()
    replace(place, interpreter.interpreter_builder, scope)
    first = [(name, original) for _, name, original in scope._changes]
    replace(place, interpreter.interpreter_builder, scope)
    again = scope._changes[len(first):]
    scope.restore()
    return first, again


for place in (tl, tl.core, tl.tensor, tl.math):
    first, again = replaced_by(replace_known, place)
    assert first and not again, (place, len(first), len(again))
    assert (first, again) == replaced_by(search, place), place
"""


def test_the_same_builtins_are_replaced() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
