"""Where a step's time goes on this rank: computing, or standing in a collective.

Two clocks with the same words: one for processors, which finish a call before they return from it,
and one for GPUs (`device_clock`), where the host runs ahead and times are read a step later.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn


@dataclass
class Span:
    """One micro-batch on this rank, milliseconds; ``start_ms`` counts from the step's start."""

    start_ms: float = 0.0
    total_ms: float = 0.0
    waiting_ms: float = 0.0

    @property
    def compute_ms(self) -> float:
        """Time not spent in collectives."""
        return self.total_ms - self.waiting_ms


@dataclass(frozen=True)
class StepTimes:
    """A step on this rank, milliseconds.

    ``parts`` are data, plan and tune, times of the host; optimizer; gap, what the device waited for
    the host's decisions; and checkpoint, what passed before the step.
    """

    step_ms: float
    parts: dict[str, float]
    spans: list[Span]


class PendingTimes(Protocol):
    """The times of a step that the device may still be working on."""

    def read(self) -> StepTimes:
        """Returns the times once the step is over, without stopping what comes after it."""
        ...


class Clock(Protocol):
    """What the training loop tells the time by."""

    def start(self) -> None:
        """Begins a step."""
        ...

    def part(self, name: str) -> AbstractContextManager[None]:
        """Adds the block's host time to the part."""
        ...

    def between(self, name: str, ms: float) -> None:
        """Adds time that passed between two steps to the part of the one that follows."""
        ...

    def update(self) -> AbstractContextManager[None]:
        """Takes the block as the part optimizer."""
        ...

    def deciding(self) -> AbstractContextManager[None]:
        """Takes what the device waits for this block as the part gap."""
        ...

    def micro_batch(self) -> AbstractContextManager[None]:
        """Records the block as a span, its waiting apart."""
        ...

    def waiting(self) -> AbstractContextManager[None]:
        """Counts the block as standing in a collective."""
        ...

    def finish(self) -> PendingTimes:
        """Ends the step."""
        ...


@dataclass
class HostClock:
    """Times of a processor, by the wall clock."""

    _parts: dict[str, float] = field(default_factory=dict)
    _between: dict[str, float] = field(default_factory=dict)
    _spans: list[Span] = field(default_factory=list)
    _waiting_ms: float = 0.0
    _started: float = 0.0

    def start(self) -> None:
        """Begins a step."""
        self._parts, self._between = self._between, {}
        self._spans, self._waiting_ms = [], 0.0
        self._started = now_ms()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the block's time to the part."""
        before = now_ms()
        yield
        self._parts[name] = self._parts.get(name, 0.0) + now_ms() - before

    def between(self, name: str, ms: float) -> None:
        """Adds time that passed between two steps to the part of the one that follows."""
        self._between[name] = self._between.get(name, 0.0) + ms

    def update(self) -> AbstractContextManager[None]:
        """Takes the block as the part optimizer."""
        return self.part("optimizer")

    def deciding(self) -> AbstractContextManager[None]:
        """Takes the block as the part gap: a processor computes nothing meanwhile."""
        return self.part("gap")

    @contextmanager
    def micro_batch(self) -> Iterator[None]:
        """Records the block as a span, its waiting apart."""
        before, waited = now_ms(), self._waiting_ms
        yield
        total = now_ms() - before
        self._spans.append(Span(before - self._started, total, self._waiting_ms - waited))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the block as standing in a collective."""
        before = now_ms()
        yield
        self._waiting_ms += now_ms() - before

    def finish(self) -> "KnownTimes":
        """Ends the step."""
        return KnownTimes(StepTimes(now_ms() - self._started, self._parts, self._spans))


@dataclass(frozen=True)
class KnownTimes:
    """Times that are there already."""

    times: StepTimes

    def read(self) -> StepTimes:
        """Returns the times."""
        return self.times


def now_ms() -> float:
    """Returns the host's time, milliseconds."""
    return 1e3 * time.perf_counter()


def make_clock(model: nn.Module, device: torch.device) -> Clock:
    """Returns the clock of the device, told of the sharded model's collectives."""
    if device.type == "cuda":
        from sbcore.train.device_clock import DeviceClock, time_stalls

        on_device = DeviceClock()
        time_stalls(model, on_device)
        return on_device
    from sbcore.train.collectives import time_collectives

    clock = HostClock()
    time_collectives(model, clock)
    return clock
