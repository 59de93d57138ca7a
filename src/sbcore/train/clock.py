"""Where a step's time goes on this rank: computing, or standing in a collective.

FSDP lets its two collectives be replaced; ours do the same and keep the time. That time is the
transfer as well as the waiting: docs/decisions/timed-collectives.md says how much of it.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_api import AllGather, ReduceScatter

# torch 2.13 renamed both and warns at the old names.
_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_reduce_scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


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


@dataclass
class StepClock:
    """Milliseconds of the current step, by part."""

    device: torch.device
    parts: dict[str, float] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    waiting_ms: float = 0.0
    _started: float = 0.0

    def start(self) -> None:
        """Begins a step."""
        self.parts, self.spans, self.waiting_ms = {}, [], 0.0
        self._started = self._now()

    def elapsed_ms(self) -> float:
        """Returns the time since the step began."""
        return self._now() - self._started

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the block's time to the part."""
        before = self._now()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + self._now() - before

    @contextmanager
    def micro_batch(self) -> Iterator[None]:
        """Records the block as a span, its waiting apart."""
        before, waited = self._now(), self.waiting_ms
        yield
        total = self._now() - before
        self.spans.append(Span(before - self._started, total, self.waiting_ms - waited))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the block as waiting for other ranks."""
        before = time.perf_counter()
        yield
        self.waiting_ms += 1e3 * (time.perf_counter() - before)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return 1e3 * time.perf_counter()


class _Allocates:
    def allocate(
        self, size: Sequence[int | torch.SymInt], *, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class TimedAllGather(_Allocates, AllGather):
    """Gathers parameters and keeps the time."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: dist.ProcessGroup,
        async_op: bool = False,
    ) -> dist.Work | None:
        """Fills output_tensor from all ranks."""
        with self.clock.waiting():
            return _all_gather(output_tensor, input_tensor, group=group, async_op=async_op)


class TimedReduceScatter(_Allocates, ReduceScatter):
    """Sums gradients and keeps the time."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: dist.ProcessGroup,
        op: dist.ReduceOp | dist.ReduceOp.RedOpType,
        async_op: bool = False,
    ) -> dist.Work | None:
        """Fills output_tensor with this rank's part of the sum."""
        with self.clock.waiting():
            return _reduce_scatter(
                output_tensor, input_tensor, op=op, group=group, async_op=async_op
            )


def time_collectives(model: torch.nn.Module, clock: StepClock) -> None:
    """Makes every sharded module of the model report its collectives to the clock."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_custom_all_gather(TimedAllGather(clock))
            module.set_custom_reduce_scatter(TimedReduceScatter(clock))
