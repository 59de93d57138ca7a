"""``torchrun -m sbcore.train``: reads a plan, trains a variant, leaves a model and its account.

This file only orders things; what a step is stands in `loop`.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from sbcore.artifacts import digest_file, digest_text, write_manifest
from sbcore.config.load import load_stage
from sbcore.config.stages import TrainStage
from sbcore.data.read import TokenStore
from sbcore.errors import SparseBalanceError
from sbcore.latency.model import TableLatencyModel
from sbcore.model.build import load_model
from sbcore.plan.read import PlanFile
from sbcore.tracking import stage_tracker
from sbcore.train.checkpoint import Checkpoints
from sbcore.train.clock import StepClock, time_collectives
from sbcore.train.finish import save_model, write_summary
from sbcore.train.loop import Trainer
from sbcore.train.run import RunFiles, train
from sbcore.train.sharding import Ranks, shard_model, start_ranks
from sbcore.train.tuning import StepTuner

_PATHS = (
    ("--config", "train.VARIANT.json, as frozen for this run"),
    ("--data", "folder of the prepared data set"),
    ("--plan", "plan.parquet of the variant"),
    ("--latency", "folder of the latency profile"),
    ("--model", "Hugging Face directory to start from"),
    ("--tokenizer", "tokenizer to put beside the model"),
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
    files = RunFiles(arguments.out, rank=ranks.rank)
    checkpoints = Checkpoints(
        arguments.out / "checkpoints",
        keep=stage.train.keep_checkpoints,
        digest=digest_text(stage.model_dump_json() + trainer.plan.digest + _weights(arguments)),
        ranks=ranks,
    )
    tracking = arguments.tracking if ranks.rank == 0 else None
    with stage_tracker(tracking, stage="train", variant=stage.variant) as tracker:
        tracker.params(stage.model_dump(mode="json"))
        rows = train(trainer, checkpoints, files, tracker=tracker, resume=arguments.resume)
        save_model(
            trainer.model,
            stage,
            ranks,
            tokenizer=arguments.tokenizer,
            out=arguments.out / "model",
        )
        if ranks.rank == 0:
            device, backend = _device_name(ranks.device), backend_name(stage, ranks.device)
            summary = write_summary(
                rows, stage, device=device, backend=backend, out=arguments.out / "summary.json"
            )
            write_manifest(
                arguments.out / "manifest.json",
                stage="train",
                config=stage.model_dump_json(),
                inputs={"data": arguments.data / "index.parquet", "plan": arguments.plan},
                device=device,
                backend=backend,
                seconds=time.perf_counter() - started,
                mlflow_run_id=tracker.run_id,
            )
            tracker.artifact(arguments.out / "summary.json")
            tracker.artifact(arguments.out / "ledger.parquet")
            step_ms = summary["step_time_ms"]["median"]
            sys.stderr.write(
                f"train {stage.variant}: {len(rows)} steps, {step_ms:.0f} ms per step (median), "
                f"loss {summary['loss_first']:.3f} -> {summary['loss_final']:.3f}\n"
            )


def build_trainer(stage: TrainStage, ranks: Ranks, arguments: argparse.Namespace) -> Trainer:
    """Returns the trainer with its inputs read and checked, the model sharded."""
    store = TokenStore(arguments.data)
    plan = PlanFile(arguments.plan, index=arguments.data / "index.parquet")
    latency = TableLatencyModel.read(arguments.latency, block_size=stage.attention.block_size)
    clock = StepClock(ranks.device)
    dtype = _DTYPES[stage.model.dtype]
    model = load_model(arguments.model, dtype=torch.float32).to(ranks.device)
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


def backend_name(stage: TrainStage, device: torch.device) -> str:
    """Returns the attention that really runs."""
    if stage.kind == "dense":
        return "sdpa"
    automatic = "triton" if device.type == "cuda" else "torch"
    return automatic if stage.attention.backend == "auto" else stage.attention.backend


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({os.cpu_count()} cores)"


def _weights(arguments: argparse.Namespace) -> str:
    return digest_file(arguments.model / "model.safetensors")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="torchrun -m sbcore.train", description=__doc__)
    for name, text in _PATHS:
        parser.add_argument(name, help=text, type=Path, required=True)
    parser.add_argument("--tracking", type=Path, help="tracking.json of the run; none = off")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    return parser


if __name__ == "__main__":
    main()
