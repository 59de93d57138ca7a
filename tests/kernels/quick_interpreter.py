"""Triton's interpreter, which looks for what it replaces once, and sorts by whole arrays.

Before every launch, and whenever a jitted function calls another, it goes through all members of
`triton.language` for builtins to replace: a fifth of the time of these tests. Which members are
builtins does not change. `tl.sort` rests on sums by exclusive or, which the interpreter makes
number by number: two fifths of what was left. It also writes a table of numpy's types whenever it
looks one of them up, and does integer sums twice to see whether they overflow, to say nothing of it
unless it debugs, which it never does: a third of the rest.
"""

import inspect
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import triton.language as tl
from triton.language.core import is_builtin
from triton.runtime import interpreter

search = interpreter._patch_builtin
apply_reduction = interpreter.ReduceOps.apply_impl
_type_of_scalar = cache(interpreter._get_np_dtype)


def make_quick() -> None:
    """Makes the interpreter quick; what it replaces and computes stays."""
    interpreter._patch_builtin = replace_known
    interpreter._get_np_dtype = find_type
    interpreter.ReduceOps.apply_impl = reduce_arrays
    builder = interpreter.interpreter_builder
    assert not builder.options.debug, "what overflows would be said, so it must be looked for"
    builder.options = replace(builder.options, sanitize_overflow=False)


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


def find_type(dtype: Any) -> np.dtype[Any]:
    """Returns numpy's type for one of Triton's, of a block's elements for a block."""
    if isinstance(dtype, tl.block_type):
        dtype = dtype.element_ty
    return np.dtype(np.uint64) if isinstance(dtype, tl.pointer_type) else _type_of_scalar(dtype)


def reduce_arrays(self: Any, tensors: Any) -> Any:
    """Does what `apply_reduction` does."""
    if self.combine_fn != tl.standard._xor_combine:
        return apply_reduction(self, tensors)
    (tensor,) = tensors
    data = np.bitwise_xor.reduce(tensor.handle.data, axis=self.axis, keepdims=self.keep_dims)
    return self.to_tensor(data, tensor.dtype)
