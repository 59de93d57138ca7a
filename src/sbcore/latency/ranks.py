"""The ranks of a measurement: started by torchrun, one process per device."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from sbcore.device import choose_device


@dataclass(frozen=True)
class MeasuringRanks:
    """This process among the others; ``host_group`` carries small host objects."""

    rank: int
    world_size: int
    device: torch.device
    host_group: dist.ProcessGroup

    @staticmethod
    def start(device_type: str) -> "MeasuringRanks":
        """Joins the other ranks of this host."""
        local_rank, world_size = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
        device = choose_device(device_type, num_ranks=world_size, local_rank=local_rank)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        host = dist.new_group(backend="gloo") if device.type == "cuda" else dist.group.WORLD
        assert host is not None, "init_process_group leaves a default group"
        return MeasuringRanks(dist.get_rank(), world_size, device, host)

    def mesh(self) -> DeviceMesh:
        """Returns all ranks in a row, over which the model is sharded."""
        return init_device_mesh(self.device.type, (self.world_size,))

    def meet(self) -> None:
        """Waits for all ranks and their devices."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        dist.barrier(self.host_group)

    def mean(self, values: Sequence[float]) -> list[float]:
        """Returns the mean over ranks of each value, the same on all."""
        total = torch.tensor(list(values), dtype=torch.float64)
        dist.all_reduce(total, group=self.host_group)
        return (total / self.world_size).tolist()

    def most(self, value: float) -> float:
        """Returns the largest value of any rank."""
        largest = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self.host_group)
        return float(largest)
