"""Run by torchrun: every rank writes what it decided; rank 1 has a slow clock on purpose."""

import hashlib
import json
import sys
import time
from pathlib import Path

import torch.distributed as dist

from sbcore.config.load import load_stage
from sbcore.config.stages import TrainStage
from sbcore.train.command import assemble_model
from sbcore.train.inputs import parse_arguments, read_inputs
from sbcore.train.ranks import start_ranks
from sbcore.train.setup import make_trainer

NUM_STEPS = 4


def main() -> None:
    folder = Path(sys.argv.pop(1))
    arguments = parse_arguments()
    stage = load_stage(arguments.config, TrainStage)
    ranks = start_ranks(wanted=2, device="cpu")
    inputs = read_inputs(stage, arguments, device=ranks.device)
    trainer = make_trainer(stage, ranks, inputs, assemble_model(stage, ranks, arguments))
    decisions = []
    for step in range(NUM_STEPS):
        plan = trainer.inputs.plan.step(step)
        targets = trainer.tuner.targets(plan, step)
        layout = json.dumps(plan.batch.micro_batches).encode()
        decisions.append(hashlib.sha256(targets.tobytes() + layout).hexdigest())
        time.sleep(0.05 * ranks.rank)
        trainer.run_step(step)
    moved = bool((targets != stage.attention.top_k).any())
    facts = {"decisions": decisions, "moved": moved}
    (folder / f"rank{ranks.rank}.json").write_text(json.dumps(facts))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
