"""The quick interpreter replaces and adds up what Triton's own does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from quick_interpreter import apply_reduction, reduce_arrays
from triton.runtime import interpreter

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


@triton.jit
def xors_kernel(numbers, by_row, by_column, of_all, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    data = tl.load(numbers + row[:, None] * COLUMNS + column[None, :])
    tl.store(by_row + row, tl.xor_sum(data, axis=1))
    tl.store(by_column + column[None, :], tl.xor_sum(data, axis=0, keep_dims=True))
    tl.store(of_all, tl.xor_sum(data))


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled, not interpreted")
@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_sums_by_exclusive_or_are_the_interpreters(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = torch.randint(-(2**15), 2**15, (4, 8), generator=torch.manual_seed(3)).to(dtype)
    found = []
    for reduce in (apply_reduction, reduce_arrays):
        monkeypatch.setattr(interpreter.ReduceOps, "apply_impl", reduce)
        sums = [torch.zeros(size, dtype=dtype) for size in (4, 8, 1)]
        xors_kernel[(1,)](numbers, *sums, ROWS=4, COLUMNS=8)
        found.append(torch.cat(sums))
    assert found[0].equal(found[1])
    assert found[0].count_nonzero() > 6
