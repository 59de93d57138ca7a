"""A GPU's clock: events in the compute stream, read when the step is long over.

Nothing here waits for the device. A stall is the time that the compute stream stands between two
of FSDP's own events: waiting for parameters or for the sum of gradients, and their copying in and
out. Collectives that run beside computation are not stalls.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from sbcore.errors import SparseBalanceError
from sbcore.train.clock import Span, StepTimes, now_ms

_STALLS = ("wait_for_unshard", "post_backward", "finalize_backward")
"""Where FSDP2 makes the compute stream wait; private names, so their absence is an error."""

Interval = tuple[torch.cuda.Event, torch.cuda.Event]


@dataclass
class _Stretch:
    """A micro-batch: its events and those of its stalls."""

    events: Interval
    stalls: list[Interval]


@dataclass
class DeviceClock:
    """Times of a GPU; host parts by the wall clock, since they overlap with the device's work."""

    _parts: dict[str, float] = field(default_factory=dict)
    _between: dict[str, float] = field(default_factory=dict)
    _stretches: list[_Stretch] = field(default_factory=list)
    _stalls: list[Interval] = field(default_factory=list)
    _intervals: dict[str, Interval] = field(default_factory=dict)
    _started: torch.cuda.Event | None = None

    def start(self) -> None:
        """Begins a step."""
        self._parts, self._between = self._between, {}
        self._stretches, self._stalls, self._intervals = [], [], {}
        self._started = _mark()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the block's host time to the part."""
        before = now_ms()
        yield
        self._parts[name] = self._parts.get(name, 0.0) + now_ms() - before

    def between(self, name: str, ms: float) -> None:
        """Adds time that passed between two steps to the part of the one that follows."""
        self._between[name] = self._between.get(name, 0.0) + ms

    def update(self) -> AbstractContextManager[None]:
        """Takes the block as the part optimizer, on the device."""
        return self._interval("optimizer")

    def deciding(self) -> AbstractContextManager[None]:
        """Takes as the part gap how long the device is through with its work before the block ends.

        A device that is still at work then passes both marks at once; copies of the block's own
        are counted.
        """
        return self._interval("gap")

    @contextmanager
    def micro_batch(self) -> Iterator[None]:
        """Records the block as a span, its stalls apart."""
        self._stalls, before = [], _mark()
        yield
        self._stretches.append(_Stretch((before, _mark()), self._stalls))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the block's stand of the compute stream as a stall."""
        before = _mark()
        yield
        self._stalls.append((before, _mark()))

    def finish(self) -> "PendingDeviceTimes":
        """Ends the step."""
        assert self._started is not None, "finish without start"
        return PendingDeviceTimes(
            (self._started, _mark()), dict(self._parts), self._stretches, self._intervals
        )

    @contextmanager
    def _interval(self, name: str) -> Iterator[None]:
        before = _mark()
        yield
        self._intervals[name] = (before, _mark())


@dataclass(frozen=True)
class PendingDeviceTimes:
    """Events of a step that the device may still be working on."""

    step: Interval
    parts: dict[str, float]
    stretches: list[_Stretch]
    intervals: dict[str, Interval]

    def read(self) -> StepTimes:
        """Returns the times; waits for the end of this step, not of later ones."""
        start, end = self.step
        end.synchronize()
        spans = [
            Span(
                start.elapsed_time(stretch.events[0]),
                _length(stretch.events),
                sum(map(_length, stretch.stalls)),
            )
            for stretch in self.stretches
        ]
        on_device = {name: _length(interval) for name, interval in self.intervals.items()}
        return StepTimes(start.elapsed_time(end), self.parts | on_device, spans)


def time_stalls(model: nn.Module, clock: DeviceClock) -> None:
    """Makes every parameter group of the sharded model report its stalls to the clock."""
    states = [m._get_fsdp_state() for m in model.modules() if isinstance(m, FSDPModule)]
    groups = {id(s._fsdp_param_group): s._fsdp_param_group for s in states}  # layers may share one
    for group in groups.values():
        for name in _STALLS if group is not None else ():
            setattr(group, name, _timed(getattr(group, name, None), name, clock))


def _timed(method: Callable[..., Any] | None, name: str, clock: DeviceClock) -> Callable[..., Any]:
    if method is None:
        raise SparseBalanceError(
            f"torch {torch.__version__}: FSDP2 has no {name}: waiting cannot be measured. "
            "use a torch version of requirements.lock."
        )

    def run(*args: Any, **words: Any) -> Any:
        with clock.waiting():
            return method(*args, **words)

    return run


def _mark() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _length(interval: Interval) -> float:
    return interval[0].elapsed_time(interval[1])
