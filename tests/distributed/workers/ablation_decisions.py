"""Run by torchrun: every rank writes each variant's plans and budgets; later ranks are slower."""

import hashlib
import json
import sys
import time
from pathlib import Path

import torch.distributed as dist

from sbcore.ablation.arguments import configured, parse_arguments
from sbcore.ablation.building import Workshop
from sbcore.ablation.settings import read_length_set, settings
from sbcore.latency.model import TableLatencyModel
from sbcore.train.ranks import start_ranks

NUM_ROUNDS, NUM_RANKS = 3, 8


def main() -> None:
    folder = Path(sys.argv.pop(1))
    arguments = parse_arguments(None)
    config = configured(arguments)
    data = read_length_set(arguments.lengths[0], max_tokens=config.data.max_sample_tokens)
    ranks = start_ranks(wanted=NUM_RANKS, device="cpu")
    latency = TableLatencyModel.read(arguments.latency, block_size=config.attention.block_size)
    facts = {}
    for setting in settings(
        [data], barriers=arguments.barriers, global_batches=arguments.global_batches
    ):
        here = setting.config(config, num_ranks=NUM_RANKS, num_rounds=NUM_ROUNDS)
        workshop = Workshop(here, ranks, latency, arguments.latency)
        facts[setting.barrier.value] = decisions_in(workshop, data.lengths)
    (folder / f"rank{ranks.rank}.json").write_text(json.dumps(facts))
    dist.destroy_process_group()


def decisions_in(workshop, lengths):
    """Returns each variant's layouts and budgets step by step, and whose budgets ever moved."""
    shared, top_k = workshop.share_model(), workshop.config.attention.top_k
    trainers = {name: workshop.trainer(shared, name, lengths) for name in workshop.config.variants}
    decisions = {name: [] for name in trainers}
    moved = dict.fromkeys(trainers, False)
    for step in range(NUM_ROUNDS):
        for name, trainer in trainers.items():
            plan = trainer.layout.lay_out(trainer.inputs.plan.step(step), step)
            targets = trainer.tuner.targets(plan, step)
            layout = json.dumps([plan.sample_ids.tolist(), plan.batch.micro_batches]).encode()
            decisions[name].append(hashlib.sha256(targets.tobytes() + layout).hexdigest())
            moved[name] |= bool((targets != top_k).any())
            time.sleep(0.01 * workshop.ranks.rank)
            trainer.run_step(step)
    for trainer in trainers.values():
        trainer.drain()
    return {"decisions": decisions, "moved": moved}


if __name__ == "__main__":
    main()
