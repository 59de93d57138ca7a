"""Run by torchrun: ``-m sbcore.train``, whose ranks wait before a step until they are killed.

Until then every rank writes what it decides; rank 1 has a slow clock on purpose.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

from sbcore.train import command as program
from sbcore.train.loop import Trainer
from sbcore.train.tuning import StepTuner

RANK = int(os.environ["RANK"])

run_step, decide = Trainer.run_step, StepTuner.targets
wait_at, folder = int(sys.argv.pop(1)), Path(sys.argv.pop(1))


def endless_step(self, step):
    time.sleep(0.05 * RANK)
    while step == wait_at:
        time.sleep(1)
    return run_step(self, step)


def written_decision(self, plan, step):
    targets = decide(self, plan, step)
    layout = json.dumps([plan.sample_ids.tolist(), plan.batch.micro_batches]).encode()
    digest = hashlib.sha256(targets.tobytes() + layout).hexdigest()
    moved = bool((targets != self.stage.attention.top_k).any())
    with (folder / f"rank{RANK}.jsonl").open("a") as stream:
        stream.write(json.dumps({"step": step, "digest": digest, "moved": moved}) + "\n")
    return targets


if __name__ == "__main__":
    Trainer.run_step, StepTuner.targets = endless_step, written_decision
    program.main()
