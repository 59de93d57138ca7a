"""Run by torchrun: ``-m sbcore.train``, whose ranks are slow at different things.

Rank 0 is slow to tune and to update, rank 1 to read its data and to save. Nobody sleeps: slowness
is time that only the rank's own clock sees, and all else passes twenty times faster, so that a
busy machine does not look slow.
"""

import os
import sys
import time
from functools import wraps
from types import SimpleNamespace

from sbcore.train import checkpoints, clock, loop
from sbcore.train import command as program
from sbcore.train.checkpoint_writer import CheckpointWriter
from sbcore.train.tuning import StepTuner
from sbcore.tune import clamp

seconds = float(sys.argv.pop(1))
slowness = []


def told_seconds():
    return time.perf_counter() / 20 + sum(slowness)


def slow_on(rank, function):
    @wraps(function)
    def slow(*arguments, **words):
        if os.environ["RANK"] == str(rank):
            slowness.append(seconds)
        return function(*arguments, **words)

    return slow


if __name__ == "__main__":
    clock.now_ms = lambda: 1e3 * told_seconds()
    for module in (checkpoints, clamp):
        module.time = SimpleNamespace(perf_counter=told_seconds)
    StepTuner.targets = slow_on(0, StepTuner.targets)
    loop.update = slow_on(0, loop.update)
    loop.pack = slow_on(1, loop.pack)
    CheckpointWriter.submit = slow_on(1, CheckpointWriter.submit)
    program.main()
