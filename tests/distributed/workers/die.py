"""Run by torchrun: ``-m sbcore.train``, whose last rank dies before a step of its first attempt."""

import os
import sys

from sbcore.train import command as program
from sbcore.train.loop import Trainer

run_step = Trainer.run_step
die_at = int(sys.argv.pop(1))


def mortal_step(self, step):
    is_last = self.ranks.rank == self.ranks.world_size - 1
    if step == die_at and is_last and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os._exit(7)
    return run_step(self, step)


if __name__ == "__main__":
    Trainer.run_step = mortal_step
    program.main()
