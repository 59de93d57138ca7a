"""What dense attention costs at a length that it has not met yet, and four ways to pay less.

Usage: PYTHONPATH=kernels python kernels/bench/new_lengths.py [WAY ...]; each WAY has a process:
`exact` cuDNN with a plan for each length, `shared` cuDNN with plans for powers of two, as
`sbkernels.moba.dense` asks for it, `padded` cuDNN at lengths rounded up to a sixteenth of their
octave, `fa2` FlashAttention-2, which plans nothing.

For each band of lengths it prints the median over lengths never met of the first call, and of the
fastest of three later ones: forward and backward, milliseconds, the device waited for.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad

from sbkernels.moba.dense import attend_causal, attend_dense

SWITCH = "TORCH_CUDNN_SDPA_AVOID_RECOMPILE"
SHAPES = {"14/2 heads, D = 64": (14, 2, 64), "16/2 heads, D = 128": (16, 2, 128)}
BANDS = ((512, 2048), (2048, 8192), (8192, 20_000), (20_000, 40_000), (40_000, 60_000))
NUM_LENGTHS = 5
STEPS_PER_OCTAVE = 16
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def attend_padded(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Returns dense attention at a rounded length: causal rows never see the zeros behind them."""
    step = max(64, 2 ** (q.shape[0].bit_length() - 1) // STEPS_PER_OCTAVE)
    behind = -q.shape[0] % step
    padded = (pad(x, (0, 0, 0, 0, 0, behind)) for x in (q, k, v))
    return attend_dense(*padded, scale=q.shape[2] ** -0.5)[: q.shape[0]]


def attend_fa2(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Returns dense attention by FlashAttention-2."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return attend_causal(q, k, v, scale=q.shape[2] ** -0.5)


def attend_fastest(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Returns dense attention as the backends call it."""
    return attend_dense(q, k, v, scale=q.shape[2] ** -0.5)


WAYS: dict[str, Attend] = {
    "exact": attend_fastest,
    "shared": attend_fastest,
    "padded": attend_padded,
    "fa2": attend_fa2,
}


def measure(way: str, shape: str, band: tuple[int, int]) -> tuple[float, float]:
    """Returns the medians of the first call and of later ones, ms."""
    calls = [
        [milliseconds(WAYS[way], length, *SHAPES[shape]) for _ in range(4)]
        for length in random.Random(0).sample(range(*band), NUM_LENGTHS)
    ]
    return median(times[0] for times in calls), median(min(times[1:]) for times in calls)


def milliseconds(
    attend: Attend, length: int, num_heads: int, num_kv_heads: int, head_dim: int
) -> float:
    """Returns the time of forward and backward of one sequence; q, k and v share a tensor."""
    heads = [num_heads, num_kv_heads, num_kv_heads]
    qkv = torch.randn(length, sum(heads), head_dim, device="cuda", dtype=torch.bfloat16)
    gradient = torch.randn_like(qkv[:, :num_heads])
    qkv.requires_grad_()
    torch.cuda.synchronize()
    started = time.perf_counter()
    torch.autograd.grad(attend(*qkv.split(heads, dim=1)), qkv, gradient)
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - started)


def main(ways: list[str]) -> None:
    """Prints a line for each way, shape and band."""
    if len(ways) != 1:
        for way in ways or WAYS:
            subprocess.run([sys.executable, __file__, way], check=True)
        return
    (way,) = ways
    # The library reads it once in a process, at its first call.
    os.environ[SWITCH] = "1" if way == "shared" else "0"
    for shape in SHAPES:
        milliseconds(WAYS[way], 300, *SHAPES[shape])  # loads the libraries
        for band in BANDS:
            first, again = measure(way, shape, band)
            tokens = f"{band[0]:6} to {band[1]} tokens"
            print(f"{way:7} {shape}, {tokens}: first {first:7.1f} ms, again {again:7.2f} ms")


if __name__ == "__main__":
    main(sys.argv[1:])
