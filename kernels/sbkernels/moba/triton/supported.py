"""What the kernels take: sizes and dtypes, and head dims made to fit.

Shapes: T packed tokens, H heads, D head dim.
"""

import torch
import triton
from torch.nn.functional import pad

from sbkernels.moba.backends import Unsupported
from sbkernels.moba.selection import num_blocks_of
from sbkernels.moba.triton.select import MAX_NUM_BLOCKS

BLOCK_SIZES = (64, 128, 256, 512)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
MIN_HEAD_DIM, MAX_HEAD_DIM = 16, 128
# Asked once: what was imported runs one way, and no compiler can look into the question.
INTERPRETED = triton.knobs.runtime.interpret


def check_supported(q: torch.Tensor, *, block_size: int, max_seqlen: int) -> None:
    """Raises Unsupported for what the reference can do and these kernels cannot."""
    num_blocks = num_blocks_of(max_seqlen, block_size)
    if not (q.is_cuda or INTERPRETED):
        raise _unsupported("device", q.device, "a GPU")
    if q.dtype not in DTYPES:
        raise _unsupported("q.dtype", q.dtype, ", ".join(map(str, DTYPES)))
    if q.shape[2] > MAX_HEAD_DIM:
        raise _unsupported("head_dim", q.shape[2], f"at most {MAX_HEAD_DIM}")
    if block_size not in BLOCK_SIZES:
        raise _unsupported("block_size", block_size, f"one of {BLOCK_SIZES}")
    if num_blocks > MAX_NUM_BLOCKS:
        wanted = f"at most {MAX_NUM_BLOCKS} blocks a sequence: a larger block_size"
        raise _unsupported("max_seqlen / block_size", num_blocks, wanted)


def _unsupported(name: str, got: object, wanted: str) -> Unsupported:
    return Unsupported(
        f"sbkernels: {name}: got {got}, wanted {wanted} (triton; the torch and reference "
        "backends take it)."
    )


def widen(tensor: torch.Tensor) -> torch.Tensor:
    """Returns the tensor with zeros up to a head dim that the tiles can have: a power of two."""
    width = max(MIN_HEAD_DIM, triton.next_power_of_2(tensor.shape[2]))
    return pad(tensor, (0, width - tensor.shape[2])) if width > tensor.shape[2] else tensor
