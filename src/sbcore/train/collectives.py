"""FSDP's two collectives, timed: on a processor they return when the others are through.

That time is the transfer as well as the waiting: docs/decisions/timed-collectives.md says how much
of it.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_api import AllGather, ReduceScatter

from sbcore.train.clock import HostClock

# torch 2.13 renamed both and warns at the old names.
_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_reduce_scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


class _Allocates:
    def allocate(
        self, size: Sequence[int | torch.SymInt], *, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class TimedAllGather(_Allocates, AllGather):
    """Gathers parameters and keeps the time."""

    def __init__(self, clock: HostClock) -> None:
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

    def __init__(self, clock: HostClock) -> None:
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


def time_collectives(model: torch.nn.Module, clock: HostClock) -> None:
    """Makes every sharded module of the model report its collectives to the clock."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_custom_all_gather(TimedAllGather(clock))
            module.set_custom_reduce_scatter(TimedReduceScatter(clock))
