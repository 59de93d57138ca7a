"""``torchrun -m sbcore.train``: reads a plan, trains a variant, leaves a model and its account.

This file only orders things; what a step is stands in `loop`.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from sbcore.artifacts import digest_file, digest_text, read_json, write_json, write_manifest
from sbcore.config.load import load_stage
from sbcore.config.stages import TrainStage
from sbcore.data.read import TokenStore
from sbcore.device import device_name
from sbcore.errors import SparseBalanceError
from sbcore.latency.model import TableLatencyModel
from sbcore.model.build import build_model, load_model, shape_config
from sbcore.plan.read import PlanFile
from sbcore.tracking import stage_tracker
from sbcore.train.checkpoint import Checkpoints
from sbcore.train.clock import StepClock, time_collectives
from sbcore.train.finish import closing_line, save_model, summarise
from sbcore.train.loop import Trainer
from sbcore.train.run import RunFiles, train
from sbcore.train.sharding import Ranks, shard_model, start_ranks
from sbcore.train.tuning import StepTuner

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PATHS = (
    ("--config", "train.VARIANT.json, as frozen for this run"),
    ("--data", "folder of the prepared data set"),
    ("--plan", "folder of the variant's plan"),
    ("--latency", "folder of the latency profile"),
    ("--out", "folder to write"),
)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    """Runs the command; bad input is one line and exit code 2."""
    arguments = _parser().parse_args()
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


def _run(stage: TrainStage, ranks: Ranks, arguments: argparse.Namespace) -> None:
    started = time.perf_counter()
    trainer = build_trainer(stage, ranks, arguments)
    checkpoints = Checkpoints(
        arguments.out / "checkpoints",
        keep=stage.train.keep_checkpoints,
        digest=digest_text(stage.model_dump_json() + trainer.plan.digest + _weights(arguments)),
        ranks=ranks,
    )
    files = RunFiles(arguments.out, rank=ranks.rank)
    tracking = arguments.tracking if ranks.rank == 0 else None
    with stage_tracker(tracking, stage="train", variant=stage.variant) as tracker:
        tracker.params(stage.model_dump(mode="json"))
        rows = train(trainer, checkpoints, files, tracker=tracker, resume=arguments.resume)
        save_model(trainer.model, stage, ranks, source=arguments.model, out=files.model)
        if ranks.rank == 0:
            summary = summarise(rows, stage, device=ranks.device)
            write_json(files.summary, summary)
            write_manifest(
                arguments.out / "manifest.json",
                stage="train",
                config=stage.model_dump_json(),
                inputs=_inputs(arguments),
                device=summary["device"],
                backend=summary["backend"],
                seconds=time.perf_counter() - started,
                mlflow_run_id=tracker.run_id,
            )
            tracker.artifact(files.summary)
            tracker.artifact(files.ledger_file)
            sys.stderr.write(closing_line(summary) + "\n")


def _inputs(arguments: argparse.Namespace) -> dict[str, Path]:
    inputs = {
        "data": arguments.data / "index.parquet",
        "plan": arguments.plan / "plan.parquet",
        "latency": arguments.latency / "latency.parquet",
    }
    return inputs | ({"model": arguments.model} if arguments.model else {})


def build_trainer(stage: TrainStage, ranks: Ranks, arguments: argparse.Namespace) -> Trainer:
    """Returns the trainer with its inputs read and checked, the model sharded."""
    store = TokenStore(arguments.data)
    plan = PlanFile(arguments.plan / "plan.parquet", index=arguments.data / "index.parquet")
    check_plan(plan, stage, arguments.plan)
    latency = TableLatencyModel.read(
        arguments.latency,
        block_size=stage.attention.block_size,
        device=device_name(ranks.device),
    )
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
    longest = int(store.lengths.max())
    tuner = StepTuner(stage, latency, longest=longest, device=ranks.device)
    return Trainer(stage, ranks, store, plan, latency, sharded, optimizer, tuner, clock)


def check_plan(plan: PlanFile, stage: TrainStage, folder: Path) -> None:
    """Refuses a plan for other ranks or another barrier; collectives would hang or time lie."""
    made_for = {"num_ranks": plan.num_ranks, "barrier": plan.barrier}
    for key, value in made_for.items():
        wanted = getattr(stage.topology, key)
        if value != wanted:
            raise SparseBalanceError(
                f"{folder / 'plan.parquet'}: {key} = {value}: the plan of another topology, "
                f"topology.{key} is {wanted}. rerun the stage plan."
            )


def _start_model(stage: TrainStage, arguments: argparse.Namespace) -> "PreTrainedModel":
    """Returns the directory's model, or one of the configured shape with random weights."""
    if arguments.model is not None:
        return load_model(arguments.model, dtype=torch.float32)
    facts = read_json(arguments.data / "summary.json")
    config = shape_config(
        stage.model.shape, vocab_size=facts["vocab_size"], max_tokens=facts["max_sample_tokens"]
    )
    return build_model(config, seed=stage.seed, dtype=torch.float32)


def _weights(arguments: argparse.Namespace) -> str:
    """Returns what the start weights are known by; random ones follow from the seed."""
    return "random" if arguments.model is None else digest_file(arguments.model)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="torchrun -m sbcore.train", description=__doc__)
    for name, text in _PATHS:
        parser.add_argument(name, help=text, type=Path, required=True)
    parser.add_argument("--model", type=Path, help="model directory; none = random weights")
    parser.add_argument("--tracking", type=Path, help="tracking.json of the run; none = off")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    return parser


if __name__ == "__main__":
    main()
