"""Clocks: CUDA events on a GPU; on a CPU the wall clock, or the thread's own time.

With one host thread all the work is on it, and its own time is the wall clock of an idle machine:
what other processes take away is not the model's. Short work is repeated often, long work seldom.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sbcore.config.compute import LatencyGridConfig
from sbcore.types import FloatArray

Run = Callable[[], object]

CYCLES_PER_MS = 2_000_000
"""Of the fastest GPU clock; a slower clock idles longer, which does no harm."""

_LEAD = 2.0
"""A device idles this many times as long as the host takes to launch the work behind it."""


@dataclass(frozen=True)
class Stopwatch:
    """Times one run at a time, by the grid's numbers of repeats and seconds."""

    device: torch.device
    grid: LatencyGridConfig

    def measure(self, run: Run) -> FloatArray:
        """Returns the milliseconds of every repetition, warmed up before. [n]."""
        once, launch = self._warm_up(run)
        wanted = self.grid.point_seconds * 1e3 / max(once, 1e-3)
        num = int(np.clip(wanted, self.grid.min_repeats, self.grid.max_repeats))
        times = self._events(run, num, launch) if self._cuda else self._clock(run, num)
        return np.array(times)

    def _warm_up(self, run: Run) -> tuple[float, float]:
        """Runs until warm; returns the last run's time and its launching, milliseconds.

        Kernels are compiled in the first one, which says nothing about either.
        """
        run()
        self._synchronize()
        began = time.perf_counter()
        while True:
            started = time.perf_counter()
            run()
            launched = time.perf_counter()
            self._synchronize()
            ended = time.perf_counter()
            if ended - began >= self.grid.warmup_seconds:
                return 1e3 * (ended - started), 1e3 * (launched - started)

    def _clock(self, run: Run, num: int) -> list[float]:
        clock = host_clock()
        times = []
        for _ in range(num):
            started = clock()
            run()
            times.append(1e3 * (clock() - started))
        return times

    def _events(self, run: Run, num: int, launch: float) -> list[float]:
        """Returns the device's times; nothing waits for it before the last one is launched.

        Before each run the device idles while the host launches it, so that launching is not
        measured: the real loop pays it once for all layers, and it is measured there.
        """
        pairs = [
            (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            for _ in range(num)
        ]
        self._synchronize()
        for start, end in pairs:
            torch.cuda._sleep(int(_LEAD * launch * CYCLES_PER_MS))
            start.record()
            run()
            end.record()
        self._synchronize()
        return [float(start.elapsed_time(end)) for start, end in pairs]

    @property
    def _cuda(self) -> bool:
        return self.device.type == "cuda"

    def _synchronize(self) -> None:
        if self._cuda:
            torch.cuda.synchronize(self.device)


def host_clock() -> Callable[[], float]:
    """Returns the clock, seconds: on one host thread its own time, which leaves out the others'.

    On a GPU the host waits for the device, which is no time of its own.
    """
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.thread_time if alone else time.perf_counter
