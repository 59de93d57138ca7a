"""Run by torchrun: rank 0 meets a full disk in what it does for all."""

import sys

import torch.distributed as dist

from sbcore.errors import SparseBalanceError
from sbcore.train.ranks import by_first_rank
from sbcore.train.restarts import join_ranks


def write():
    raise OSError(28, "No space left on device", "out/a")


if __name__ == "__main__":
    join_ranks("gloo")
    try:
        by_first_rank(write, dist.group.WORLD)
    except SparseBalanceError as error:
        sys.stdout.write(f"rank {dist.get_rank()}: {error}\n")
        sys.stdout.flush()
    dist.destroy_process_group()
