"""What dense attention costs at a length that it has not met yet; seconds on one GPU.

``python docs/results/new_lengths.py`` times the first and the third call, forward and backward, of
each of twelve lengths, and prints medians. ``TORCH_CUDNN_SDPA_AVOID_RECOMPILE=1`` before it says
whether the library can do without a plan for each length.
"""

import sys
import time

import numpy as np
import torch

from sbkernels.moba.dense import attend_dense

HEADS, KEY_HEADS, DIM = 14, 2, 64
NUM_LENGTHS, WARM = 12, 4096


def main() -> None:
    """Prints one line."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    most = 20_000 if device.type == "cuda" else 200
    lengths = np.random.default_rng(0).choice(np.arange(most // 20, most), NUM_LENGTHS, False)
    milliseconds(min(WARM, most), device)  # loads the libraries
    calls = np.array([[milliseconds(n, device) for _ in range(3)] for n in lengths.tolist()])
    first, _, third = np.median(calls, axis=0)
    sys.stdout.write(
        f"{device}, {NUM_LENGTHS} lengths of {lengths.min()} to {lengths.max()} tokens: "
        f"first call {first:.1f} ms, third {third:.1f} ms, "
        f"new lengths cost {first - third:.1f} ms each\n"
    )


def milliseconds(length: int, device: torch.device) -> float:
    """Returns the time of forward and backward of one sequence, the device waited for."""
    q, k, v = (
        torch.randn(length, heads, DIM, device=device, dtype=torch.bfloat16, requires_grad=True)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    synchronise(device)
    started = time.perf_counter()
    attend_dense(q, k, v, scale=DIM**-0.5).sum().backward()
    synchronise(device)
    return 1e3 * (time.perf_counter() - started)


def synchronise(device: torch.device) -> None:
    """Waits for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
