"""Times of a call on the device, taken so that runs can be compared.

After about 10 s of matrix work the card falls from 1980 to 1600 MHz and the same kernels take
15-25 % longer: hence a pause before each figure, and ratios inside one run only.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

PAUSE_SECONDS = 0.5
WARM_UPS = 2
REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Milliseconds of one call at three quantiles, and the memory it took on top, GiB."""

    p20_ms: float
    p50_ms: float
    p80_ms: float
    peak_gib: float


def time_call(call: Callable[[], object]) -> Timing:
    """Returns the times of `call` by CUDA events after warm-up and a pause."""
    for _ in range(WARM_UPS):
        call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    time.sleep(PAUSE_SECONDS)
    events = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(REPEATS)
    ]
    for start, end in events:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    times = torch.tensor([start.elapsed_time(end) for start, end in events])
    p20, p50, p80 = times.quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
    return Timing(p20_ms=p20, p50_ms=p50, p80_ms=p80, peak_gib=peak / 2**30)
