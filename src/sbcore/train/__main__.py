"""``torchrun -m sbcore.train``: reads a plan, trains a variant, leaves a model and its account.

This file only orders things; what a step is stands in `loop`.
"""

import os
import sys
import time
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from sbcore.artifacts import digest_file, digest_text, read_json, write_json, write_manifest
from sbcore.config.load import load_stage
from sbcore.config.stages import TrainStage
from sbcore.errors import SparseBalanceError
from sbcore.model.build import build_model, load_model, shape_config
from sbcore.tracking import stage_tracker
from sbcore.train.checkpoint import Checkpoints
from sbcore.train.clock import StepClock, time_collectives
from sbcore.train.finish import closing_line, save_model, summarise
from sbcore.train.inputs import Arguments, input_files, parse_arguments, read_inputs
from sbcore.train.loop import Trainer
from sbcore.train.run import RunFiles, train
from sbcore.train.sharding import Ranks, shard_model, start_ranks
from sbcore.train.tuning import StepTuner

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    """Runs the command; bad input is one line and exit code 2."""
    arguments = parse_arguments()
    try:
        stage = load_stage(arguments.config, TrainStage)
        torch.set_num_threads(stage.train.threads_per_rank)
        ranks = start_ranks(wanted=stage.topology.num_ranks, device=stage.topology.device)
        _run(stage, ranks, arguments)
    except SparseBalanceError as error:
        if os.environ.get("RANK", "0") == "0":
            sys.stderr.write(f"{error}\n")
        sys.exit(2)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _run(stage: TrainStage, ranks: Ranks, arguments: Arguments) -> None:
    started = time.perf_counter()
    trainer = build_trainer(stage, ranks, arguments)
    identity = stage.model_dump_json() + trainer.inputs.plan.digest + _weights(arguments)
    checkpoints = Checkpoints(
        arguments.out / "checkpoints",
        keep=stage.train.keep_checkpoints,
        digest=digest_text(identity),
        ranks=ranks,
    )
    files = RunFiles(arguments.out, rank=ranks.rank)
    tracking = arguments.tracking if ranks.rank == 0 else None
    with stage_tracker(tracking, stage="train", variant=stage.variant) as tracker:
        tracker.params(stage.model_dump(mode="json"))
        tracker.dataset(
            "train",
            trainer.inputs.store.lengths,
            source=arguments.data,
            digest=trainer.inputs.store.digest,
            context="training",
        )
        rows = train(trainer, checkpoints, files, tracker=tracker, resume=arguments.resume)
        save_model(trainer.model, stage, ranks, source=arguments.model, out=files.model)
        if ranks.rank == 0:
            summary = summarise(rows, stage, device=ranks.device)
            write_json(files.summary, summary)
            write_manifest(
                arguments.out / "manifest.json",
                stage="train",
                config=stage.model_dump_json(),
                inputs=input_files(arguments),
                device=summary["device"],
                backend=summary["backend"],
                seconds=time.perf_counter() - started,
                mlflow_run_id=tracker.run_id,
            )
            tracker.artifact(files.summary)
            tracker.artifact(files.ledger_file)
            sys.stderr.write(closing_line(summary) + "\n")


def build_trainer(stage: TrainStage, ranks: Ranks, arguments: Arguments) -> Trainer:
    """Returns the trainer with its inputs read and checked, the model sharded."""
    inputs = read_inputs(stage, arguments, device=ranks.device)
    clock = StepClock(ranks.device)
    dtype = _DTYPES[stage.model.dtype]
    model = _start_model(stage, arguments).to(ranks.device)
    model.train()
    if stage.train.activation_checkpointing:
        model.gradient_checkpointing_enable()
    sharded = shard_model(model, ranks, barrier=stage.topology.barrier, dtype=dtype)
    time_collectives(sharded, clock)
    optimizer = torch.optim.AdamW(
        sharded.parameters(),
        lr=stage.train.learning_rate,
        betas=stage.train.betas,
        weight_decay=stage.train.weight_decay,
    )
    longest = int(inputs.store.lengths.max())
    tuner = StepTuner(stage, inputs.latency, longest=longest, device=ranks.device)
    return Trainer(stage, ranks, inputs, sharded, optimizer, tuner, clock)


def _start_model(stage: TrainStage, arguments: Arguments) -> "PreTrainedModel":
    """Returns the directory's model, or one of the configured shape with random weights."""
    if arguments.model is not None:
        return load_model(arguments.model, dtype=torch.float32)
    facts = read_json(arguments.data / "summary.json")
    config = shape_config(
        stage.model.shape, vocab_size=facts["vocab_size"], max_tokens=facts["max_sample_tokens"]
    )
    return build_model(config, seed=stage.seed, dtype=torch.float32)


def _weights(arguments: Arguments) -> str:
    """Returns what the start weights are known by; random ones follow from the seed."""
    return "random" if arguments.model is None else digest_file(arguments.model)


if __name__ == "__main__":
    main()
