"""The ranks among which prompts are dealt out: torchrun's, or this process alone."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from sbcore.device import choose_device

if TYPE_CHECKING:
    import torch

Part = TypeVar("Part")

_LONGEST_WAIT = timedelta(days=2)  # for the rank with the longest answers


@dataclass(frozen=True, slots=True)
class Shard:
    """This process among the others; ``local_rank`` of ``num_local_ranks`` on this host."""

    rank: int
    num_ranks: int
    local_rank: int
    num_local_ranks: int

    @property
    def is_alone(self) -> bool:
        """Whether there are no others."""
        return self.num_ranks == 1

    def own(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Returns every ``num_ranks``-th part: neighbours in order of length go to all ranks."""
        return parts[self.rank :: self.num_ranks]

    def device(self, wanted: str) -> "torch.device":
        """Returns this process's device; see `choose_device`."""
        return choose_device(wanted, num_ranks=self.num_local_ranks, local_rank=self.local_rank)

    def wait(self) -> None:
        """Returns when every rank has come here."""
        if self.is_alone:
            return
        import torch.distributed as dist

        dist.barrier()


@contextmanager
def this_shard() -> Iterator[Shard]:
    """Yields what torchrun says in the environment, alone without it; leaves the group behind."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    shard = Shard(*(int(os.environ.get(n, d)) for n, d in zip(names, "0101", strict=True)))
    if shard.is_alone:
        yield shard
        return
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=_LONGEST_WAIT)
    try:
        yield shard
    finally:
        dist.destroy_process_group()


ALONE = Shard(rank=0, num_ranks=1, local_rank=0, num_local_ranks=1)
"""This process without others."""
