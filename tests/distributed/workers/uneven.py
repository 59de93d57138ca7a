"""Run by torchrun: ``-m sbcore.train``, whose ranks are slow at different things.

Rank 0 is slow to tune and to update, rank 1 to read its data and to save.
"""

import os
import sys
import time
from functools import wraps

from sbcore.train import command as program
from sbcore.train import loop
from sbcore.train.checkpoint_writer import CheckpointWriter
from sbcore.train.tuning import StepTuner

seconds = float(sys.argv.pop(1))


def slow_on(rank, function):
    @wraps(function)
    def slow(*arguments, **words):
        if os.environ["RANK"] == str(rank):
            time.sleep(seconds)
        return function(*arguments, **words)

    return slow


def slow_after(rank, function):
    """Late, so that the other rank does not wait for it in the function's collectives."""

    @wraps(function)
    def slow(*arguments, **words):
        result = function(*arguments, **words)
        if os.environ["RANK"] == str(rank):
            time.sleep(seconds)
        return result

    return slow


if __name__ == "__main__":
    StepTuner.targets = slow_on(0, StepTuner.targets)
    loop.update = slow_after(0, loop.update)
    loop.pack = slow_on(1, loop.pack)
    CheckpointWriter.submit = slow_on(1, CheckpointWriter.submit)
    program.main()
