"""Run by torchrun: ``-m sbcore.train``, whose ranks wait before a step until they are killed."""

import sys
import time

from sbcore.train import command as program
from sbcore.train.loop import Trainer

run_step = Trainer.run_step
wait_at = int(sys.argv.pop(1))


def endless_step(self, step):
    while step == wait_at:
        time.sleep(1)
    return run_step(self, step)


if __name__ == "__main__":
    Trainer.run_step = endless_step
    program.main()
