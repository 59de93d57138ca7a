"""Ranks and how the model is spread over them: FSDP2, sums instead of means.

The loss is already divided by the target tokens of the whole global batch, so gradients are
summed over ranks: then any plan of the same global batch gives the same gradient.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from sbcore.device import choose_device
from sbcore.errors import SparseBalanceError
from sbcore.types import Barrier


@dataclass(frozen=True)
class Ranks:
    """This process among the others; ``host_group`` carries small host objects."""

    rank: int
    world_size: int
    device: torch.device
    host_group: dist.ProcessGroup


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
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    host_group = dist.new_group(backend="gloo") if where.type == "cuda" else dist.group.WORLD
    assert host_group is not None, "init_process_group leaves a default group"
    return Ranks(dist.get_rank(), world_size, where, host_group)


def shard_model(
    model: nn.Module, ranks: Ranks, *, barrier: Barrier, dtype: torch.dtype
) -> nn.Module:
    """Returns the model sharded layer by layer over all ranks.

    Under barrier `micro` parameters are gathered anew for each micro-batch (least memory, ranks
    meet in every one); under `step` they stay gathered within a step.
    """
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype is torch.float32 else dtype, reduce_dtype=torch.float32
    )
    for part in (*model.model.layers, model):  # type: ignore[union-attr, misc]
        fully_shard(
            part,
            mesh=mesh,
            mp_policy=policy,
            reshard_after_forward=barrier is Barrier.MICRO,
        )
        part.set_gradient_divide_factor(1.0)
        # gloo has no scaled sum; with a factor of one a plain sum is the same.
        part.set_force_sum_reduction_for_comms(True)
    return model


def synchronise_gradients(model: nn.Module, *, barrier: Barrier, last: bool) -> None:
    """Says whether the coming backward meets the other ranks: always, or only in the last one."""
    assert isinstance(model, FSDPModule), type(model)
    meet = last or barrier is Barrier.MICRO
    model.set_requires_gradient_sync(meet)
    model.set_reshard_after_backward(meet)
