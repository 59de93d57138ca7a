"""Run by torchrun: two steps with or without a rehearsal before them; rank 1 may run out."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from sbcore.config.load import load_stage
from sbcore.config.stages import TrainStage
from sbcore.train import rehearsal
from sbcore.train.command import assemble_model
from sbcore.train.inputs import parse_arguments, read_inputs
from sbcore.train.memory import MicroBatchTooLarge
from sbcore.train.ranks import start_ranks
from sbcore.train.setup import make_trainer


def losses_of(stage, ranks, arguments, *, rehearsed):
    inputs = read_inputs(stage, arguments, device=ranks.device)
    trainer = make_trainer(stage, ranks, inputs, assemble_model(stage, ranks, arguments))
    if rehearsed:
        rehearsal.rehearse(trainer, known_sizes=())
    trainer.run_step(0)
    rows = [trainer.run_step(1).row, trainer.drain().row]
    return [row["loss"] for row in rows]


def lengths_rehearsed(stage, ranks, arguments):
    inputs = read_inputs(stage, arguments, device=ranks.device)
    trainer = make_trainer(stage, ranks, inputs, assemble_model(stage, ranks, arguments))
    run, ran = rehearsal.run_micro_batches, []

    def noted(model, work, **more):
        ran.extend(list(batch.lengths) for batch in work.batches)
        torch.rand(1)  # as dropout does
        return run(model, work, **more)

    rehearsal.run_micro_batches, before = noted, torch.get_rng_state()
    rehearsal.rehearse(trainer, known_sizes=())
    kept = torch.equal(torch.get_rng_state(), before)
    rehearsal.run_micro_batches = run
    steps = [inputs.plan.step(number) for number in range(inputs.plan.num_steps)]
    planned = [int(length) for step in steps for length in step.lengths]
    return {
        "ran": [[int(length) for length in lengths] for lengths in ran],
        "planned": planned,
        "kept": kept,
    }


def products_rehearsed(stage, ranks, arguments):
    """Returns how many products were noted, for which numbers of tokens, and those of the plan."""
    inputs = read_inputs(stage, arguments, device=ranks.device)
    trainer = make_trainer(stage, ranks, inputs, assemble_model(stage, ranks, arguments))
    did, again = [], rehearsal.do_again

    def noted(found, counts, **more):
        did.append((len(found), list(counts)))
        again(found, counts, **more)

    rehearsal.do_again = noted
    rehearsal._rehearse_products(trainer)
    rehearsal.do_again = again
    [(num_products, counts)] = did
    micro_batches = [
        int(step.lengths[list(micro)].sum())
        for step in map(inputs.plan.step, range(inputs.plan.num_steps))
        for rank in step.batch.micro_batches
        for micro in rank
        if micro
    ]
    return {"num": num_products, "counts": counts, "planned": sorted(set(micro_batches))}


def line_of_too_little_memory(stage, ranks, arguments, *, num_good):
    """Returns the line where memory runs out after so many runs that fit."""
    inputs = read_inputs(stage, arguments, device=ranks.device)
    trainer = make_trainer(stage, ranks, inputs, assemble_model(stage, ranks, arguments))

    run, ran = rehearsal.run_micro_batches, []

    def run_out(*words, **more):
        ran.append(words)
        if len(ran) <= num_good:
            return run(*words, **more)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB. GPU 1 is full.")

    rehearsal.run_micro_batches = run_out
    try:
        rehearsal.rehearse(trainer, known_sizes=())
    except MicroBatchTooLarge as error:
        return str(error)
    finally:
        rehearsal.run_micro_batches = run
    raise AssertionError("nothing was raised")


def main() -> None:
    out = Path(sys.argv.pop(1))
    arguments = parse_arguments()
    stage = load_stage(arguments.config, TrainStage)
    ranks = start_ranks(wanted=2, device="cpu")
    facts = {
        "plain": losses_of(stage, ranks, arguments, rehearsed=False),
        "rehearsed": losses_of(stage, ranks, arguments, rehearsed=True),
        "lengths": lengths_rehearsed(stage, ranks, arguments),
        "products": products_rehearsed(stage, ranks, arguments),
        "line": line_of_too_little_memory(stage, ranks, arguments, num_good=0),
        "later_line": line_of_too_little_memory(stage, ranks, arguments, num_good=1),
    }
    (out / f"rank{ranks.rank}.json").write_text(json.dumps(facts))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
