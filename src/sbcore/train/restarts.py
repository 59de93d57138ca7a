"""Ranks that meet again after torchrun restarted them.

torchrun's c10d rendezvous keeps one key-value store over all restarts, so restarted ranks may
find the addresses of the dead ones and fail to connect (seen with torch 2.13 and gloo; NCCL has
the same trap). Each attempt therefore gets keys of its own.
"""

import os
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from sbcore.errors import SparseBalanceError

_UNSHARED = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


def are_restarted(group: dist.ProcessGroup) -> bool:
    """Returns whether torchrun has started any of the ranks before; all of them ask, all agree.

    Each node counts the failures of its own ranks alone.
    """
    counts: list[Any] = [None] * dist.get_world_size(group)
    mine = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    dist.all_gather_object(counts, mine, group=group)
    return any(counts)


def join_ranks(backend: str) -> None:
    """Starts the process group of this attempt.

    Raises:
        SparseBalanceError: Several nodes with restarts share a store: their counts of attempts
            differ, so no key is safe there.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        dist.init_process_group(backend)  # torchrun starts a store for each attempt
        return
    num_nodes, restarts = os.environ["GROUP_WORLD_SIZE"], os.environ["TORCHELASTIC_MAX_RESTARTS"]
    if int(num_nodes) > 1 and int(restarts) > 0:
        raise SparseBalanceError(
            f"torchrun --max-restarts {restarts} on {num_nodes} nodes: restarted ranks would meet "
            f"at addresses of dead ones. export {_UNSHARED}=1 on every node."
        )
    store, rank, world_size = next(rendezvous("env://"))
    attempt = PrefixStore(f"attempt-{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=attempt, rank=rank, world_size=world_size)
