"""The ranks of a training: started by torchrun, joined here."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from sbcore.device import choose_device
from sbcore.errors import SparseBalanceError
from sbcore.train.restarts import join_ranks

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among the others; ``host_group`` carries small host objects."""

    rank: int
    world_size: int
    device: torch.device
    host_group: dist.ProcessGroup

    def mesh(self) -> DeviceMesh:
        """Returns all ranks in a row, over which the model is sharded."""
        return init_device_mesh(self.device.type, (self.world_size,))


def start_ranks(*, wanted: int, device: str) -> Ranks:
    """Joins the other ranks; refuses a world that does not fit the configuration."""
    world_size = int(os.environ.get("WORLD_SIZE", "0"))
    if world_size != wanted:
        raise SparseBalanceError(
            f"topology.num_ranks = {wanted}: torchrun started {world_size or 'no'} ranks. "
            f"start with torchrun --nproc-per-node {wanted} -m sbcore.train."
        )
    local_rank = int(os.environ["LOCAL_RANK"])
    local_ranks = int(os.environ["LOCAL_WORLD_SIZE"])
    where = choose_device(device, num_ranks=local_ranks, local_rank=local_rank)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    join_ranks("nccl" if where.type == "cuda" else "gloo")
    host_group = dist.new_group(backend="gloo") if where.type == "cuda" else dist.group.WORLD
    assert host_group is not None, "init_process_group leaves a default group"
    return Ranks(dist.get_rank(), world_size, where, host_group)


def by_first_rank(work: Callable[[], T], group: dist.ProcessGroup) -> T:
    """Returns on all ranks what the work gives on rank 0, which alone does it.

    Raises:
        SparseBalanceError: The work raised it, or met a file that cannot be read or written; all
            ranks do, or they would wait for what rank 0 does not give.
    """
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = work()
        except SparseBalanceError as error:
            outcome[1] = str(error)
        except OSError as error:
            outcome[1] = (
                f"{error.filename or 'rank 0'}: {error.strerror or error}: cannot be read or "
                "written. make room, or look at its permissions."
            )
    dist.broadcast_object_list(outcome, src=0, group=group)
    if outcome[1] is not None:
        raise SparseBalanceError(outcome[1])
    result: T = outcome[0]
    return result
