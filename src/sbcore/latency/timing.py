"""Clocks: CUDA events on a GPU; on a CPU the wall clock, or the thread's own time.

With one host thread all the work is on it, and its own time is the wall clock of an idle machine:
what other processes take away is not the model's.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch

from sbcore.latency.grid import GridPoint
from sbcore.latency.runs import Run
from sbcore.latency.table import MeasuredPoint

_AHEAD_CYCLES = 20_000_000
"""About 10 ms of device idling before a kernel is timed, so that its launches are not."""

_HOST_BOUND = ("floor", "micro_batch")
"""Parts whose launches belong to what is measured."""


@dataclass(frozen=True)
class Stopwatch:
    """Times one run at a time."""

    device: torch.device
    warmup: int
    repeats: int

    def measure(self, point: GridPoint, run: Run) -> MeasuredPoint:
        """Returns the point with the median, 20th and 80th percentile of its times."""
        for _ in range(self.warmup):
            run()
        once = self._wall if self._host_counts(point) else self._events
        times = [once(run) for _ in range(self.repeats)]
        p20, median, p80 = np.quantile(times, [0.2, 0.5, 0.8]).tolist()
        return MeasuredPoint(
            part=point.part,
            length=point.length,
            top_k=point.top_k,
            num_sequences=point.num_sequences,
            median_ms=median,
            p20_ms=p20,
            p80_ms=p80,
            n=self.repeats,
            held_out=point.held_out,
        )

    def _host_counts(self, point: GridPoint) -> bool:
        return self.device.type == "cpu" or point.part in _HOST_BOUND

    def _wall(self, run: Run) -> float:
        alone = self.device.type == "cpu" and torch.get_num_threads() == 1
        clock = time.thread_time if alone else time.perf_counter
        self._synchronize()
        started = clock()
        run()
        self._synchronize()
        return (clock() - started) * 1e3

    def _events(self, run: Run) -> float:
        """Returns the device's time: the host runs ahead while the device idles first."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._synchronize()
        torch.cuda._sleep(_AHEAD_CYCLES)
        start.record()
        run()
        end.record()
        self._synchronize()
        return float(start.elapsed_time(end))

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
