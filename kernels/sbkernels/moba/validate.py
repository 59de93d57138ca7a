"""Checks of the public arguments, made once at the border; inside, they are trusted.

Values that live on an accelerator are never read here (a read would stall the stream):
the boundaries are taken as given.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch

from sbkernels.moba.selection import BlockSelection

FLOAT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_query_key(q: torch.Tensor, k: torch.Tensor) -> None:
    """Raises ValueError unless q [T, H, D] and k [T, G, D] fit, with H a multiple of G."""
    for name, tensor in (("q", q), ("k", k)):
        if tensor.dim() != 3:
            raise _error(f"{name}.shape", tuple(tensor.shape), "[tokens, heads, head_dim]")
    if q.dtype not in FLOAT_DTYPES:
        raise _error("q.dtype", q.dtype, "one of " + ", ".join(map(str, FLOAT_DTYPES)))
    _check_like("k", k, q)
    if k.shape[0] != q.shape[0] or k.shape[2] != q.shape[2]:
        wanted = f"[{q.shape[0]}, num_kv_heads, {q.shape[2]}] as q has {tuple(q.shape)}"
        raise _error("k.shape", tuple(k.shape), wanted)
    if q.shape[1] < 1 or k.shape[1] < 1 or q.shape[1] % k.shape[1]:
        wanted = f"a multiple of the {k.shape[1]} key heads"
        raise _error("number of query heads", q.shape[1], wanted)


def check_value(v: torch.Tensor, k: torch.Tensor) -> None:
    """Raises ValueError unless v has the shape, dtype and device of k."""
    if v.shape != k.shape:
        raise _error("v.shape", tuple(v.shape), f"{tuple(k.shape)} as k")
    _check_like("v", v, k)


def check_boundaries(
    cu_seqlens: torch.Tensor, q: torch.Tensor, *, block_size: int, max_seqlen: int
) -> None:
    """Raises ValueError unless cu_seqlens int32 [N+1] cuts the tokens of q into sequences.

    On a CPU the boundaries themselves are checked as well.
    """
    if cu_seqlens.dtype != torch.int32 or cu_seqlens.dim() != 1 or cu_seqlens.numel() < 2:
        got = f"{cu_seqlens.dtype} {tuple(cu_seqlens.shape)}"
        raise _error("cu_seqlens", got, "int32 [num_sequences + 1], at least one sequence")
    _check_device("cu_seqlens", cu_seqlens, q)
    if not isinstance(block_size, int) or block_size < 1:
        raise _error("block_size", block_size, "an int, at least 1 token")
    # A tensor here would make every call wait for the device.
    if not isinstance(max_seqlen, int) or max_seqlen < 0:
        raise _error("max_seqlen", max_seqlen, "an int, the length of the longest sequence")
    if cu_seqlens.device.type == "cpu":
        _check_ends(cu_seqlens.tolist(), num_tokens=q.shape[0], max_seqlen=max_seqlen)


def check_selection(
    selection: BlockSelection,
    q: torch.Tensor,
    cu_seqlens: torch.Tensor,
    *,
    block_size: int,
    max_seqlen: int,
) -> None:
    """Raises ValueError unless the selection was made for inputs of these shapes."""
    got = (*selection.num_heads_and_tokens, selection.top_k.numel())
    wanted = (q.shape[1], q.shape[0], cu_seqlens.numel() - 1)
    if got != wanted:
        raise _error("selection (heads, tokens, sequences)", got, f"{wanted} as the inputs")
    sizes = (selection.block_size, selection.max_seqlen)
    if sizes != (block_size, max_seqlen):
        wanted_sizes = f"{(block_size, max_seqlen)} as the arguments"
        raise _error("selection (block_size, max_seqlen)", sizes, wanted_sizes)
    _check_device("selection", selection.top_k, q)


def check_ladder(ladder: Sequence[int], *, row_stride: int) -> tuple[int, ...]:
    """Returns the ladder as a tuple; raises ValueError unless it ascends from 1 or more."""
    rungs = tuple(ladder)
    if not rungs or rungs[0] < 1 or any(b <= a for a, b in pairwise(rungs)):
        raise _error("ladder", rungs, "values of top_k, at least 1, strictly ascending")
    if row_stride < 1:
        raise _error("row_stride", row_stride, "at least 1 row")
    return rungs


def _check_ends(boundaries: list[int], *, num_tokens: int, max_seqlen: int) -> None:
    lengths = [b - a for a, b in pairwise(boundaries)]
    if boundaries[0] != 0 or boundaries[-1] != num_tokens:
        got = f"{boundaries[0]} ... {boundaries[-1]}"
        raise _error("cu_seqlens", got, f"0 ... {num_tokens}, the number of tokens of q")
    if min(lengths) < 0:
        raise _error("cu_seqlens", boundaries, "boundaries that never fall")
    if max(lengths) > max_seqlen:
        raise _error("max_seqlen", max_seqlen, f"at least the longest sequence, {max(lengths)}")


def _check_like(name: str, tensor: torch.Tensor, other: torch.Tensor) -> None:
    if tensor.dtype != other.dtype:
        raise _error(f"{name}.dtype", tensor.dtype, f"{other.dtype} as q")
    _check_device(name, tensor, other)


def _check_device(name: str, tensor: torch.Tensor, other: torch.Tensor) -> None:
    if tensor.device != other.device:
        raise _error(f"{name}.device", tensor.device, f"{other.device} as q")


def _error(name: str, got: object, wanted: str) -> ValueError:
    return ValueError(f"sbkernels: {name}: got {got}, wanted {wanted}.")
