"""How ranks say what is wrong: in one line, although most often all of them have found the same."""

import os
import sys
import time

from sbcore.errors import SparseBalanceError
from sbcore.train.memory import MicroBatchTooLarge, ModelTooLarge

RANK0_SPEAKS_SECONDS = 5.0


class AlreadySaid(SparseBalanceError):
    """An error whose line is written; what is left is to end with exit code 2."""


def complain(error: SparseBalanceError) -> None:
    """Writes the error to stderr.

    Rank 0 speaks at once, and its end is the end of all. Another rank may have met the error first,
    or alone: it lets rank 0 speak, and if it still lives then, nobody else said it.
    """
    if isinstance(error, AlreadySaid):
        return
    rank = os.environ.get("RANK", "0")
    if rank == "0" or isinstance(error, MicroBatchTooLarge | ModelTooLarge):
        sys.stderr.write(f"{error}\n")
        return
    time.sleep(RANK0_SPEAKS_SECONDS)
    sys.stderr.write(f"rank {rank}: {error}\n")
