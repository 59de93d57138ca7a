"""What the machine can do at best, measured beside the variants: numbers to judge theirs by.

T tokens, H heads, D head dim.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured."""

    all_reduce_bytes: int
    matmul_dim: int
    attention_tokens: int
    num_heads: int
    head_dim: int
    repeats: int


SIZES = {
    "cuda": Sizes(256 << 20, 8192, 32_768, num_heads=16, head_dim=128, repeats=10),
    "cpu": Sizes(1 << 20, 128, 256, num_heads=2, head_dim=32, repeats=3),
}
"""On a CPU as small as it gets: the numbers are nobody's ceiling, but the code runs."""


def measure_ceilings(device: torch.device, *, world_size: int) -> dict[str, dict[str, Any]]:
    """Returns medians of an all-reduce, a square bf16 product and dense causal attention.

    Every rank must call it; NCCL's bus bandwidth is 2 (R - 1) / R of the bytes per second.
    """
    sizes = SIZES[device.type]
    reduce_ms = _median_ms(_all_reduce(sizes, device), device, sizes.repeats)
    matmul_ms = _median_ms(_matmul(sizes, device), device, sizes.repeats)
    attention_ms = _median_ms(_attention(sizes, device), device, sizes.repeats)
    bus_bytes = 2 * (world_size - 1) / world_size * sizes.all_reduce_bytes
    pairs = sizes.attention_tokens * (sizes.attention_tokens + 1) / 2
    attention_flops = 14 * pairs * sizes.num_heads * sizes.head_dim
    return {
        "all_reduce": {
            "bytes": sizes.all_reduce_bytes,
            "ms": reduce_ms,
            "bus_gb_per_s": bus_bytes / reduce_ms / 1e6,
        },
        "matmul": {
            "shape": [sizes.matmul_dim] * 3,
            "dtype": "bfloat16",
            "ms": matmul_ms,
            "tflop_per_s": 2 * sizes.matmul_dim**3 / matmul_ms / 1e9,
        },
        "attention": {
            "what": "dense causal, forward and backward, "
            + ("cuDNN" if device.type == "cuda" else "the library's default"),
            "tokens": sizes.attention_tokens,
            "num_heads": sizes.num_heads,
            "head_dim": sizes.head_dim,
            "dtype": "bfloat16",
            "ms": attention_ms,
            "tflop_per_s": attention_flops / attention_ms / 1e9,
        },
    }


def _all_reduce(sizes: Sizes, device: torch.device) -> Callable[[], None]:
    values = torch.zeros(sizes.all_reduce_bytes // 4, device=device)

    def run() -> None:
        dist.all_reduce(values)

    return run


def _matmul(sizes: Sizes, device: torch.device) -> Callable[[], None]:
    shape = (sizes.matmul_dim, sizes.matmul_dim)
    left, right = (torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(2))

    def run() -> None:
        torch.mm(left, right)

    return run


def _attention(sizes: Sizes, device: torch.device) -> Callable[[], None]:
    shape = (1, sizes.num_heads, sizes.attention_tokens, sizes.head_dim)  # [1, H, T, D]
    q, k, v, gradient = (
        torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True)
        for _ in range(4)
    )
    backend = SDPBackend.CUDNN_ATTENTION if device.type == "cuda" else SDPBackend.MATH

    def run() -> None:
        with sdpa_kernel(backend):
            out = scaled_dot_product_attention(q, k, v, is_causal=True)
        torch.autograd.grad(out, (q, k, v), gradient)

    return run


def _median_ms(run: Callable[[], None], device: torch.device, repeats: int) -> float:
    """Returns the median wall time of the work, the device waited for; the first two warm up."""
    times = []
    for _ in range(repeats + 2):
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times[2:]))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
