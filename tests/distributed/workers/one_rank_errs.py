"""Run by torchrun: ``-m sbcore.train``, in which some ranks find their input wrong, one first."""

import os
import sys
import time

from sbcore.errors import SparseBalanceError
from sbcore.train import command as program

read_inputs = program.read_inputs
late_by = {rank: float(late) for rank, late in enumerate(sys.argv.pop(1).split(",")) if late}


def read_wrongly(*arguments, **words):
    rank = int(os.environ["RANK"])
    if rank in late_by:
        time.sleep(late_by[rank])
        raise SparseBalanceError(f"data: found by {rank}")
    return read_inputs(*arguments, **words)


if __name__ == "__main__":
    program.read_inputs = read_wrongly
    program.main()
