"""``torchrun -m sbcore.train``: reads a plan, trains a variant, leaves a model and its account.

This file only orders things; what a step is stands in `loop`.
"""

import sys
import time
from contextlib import closing

import torch
import torch.distributed as dist

from sbcore.artifacts import read_json
from sbcore.config.load import load_stage
from sbcore.config.stages import TrainStage
from sbcore.errors import SparseBalanceError
from sbcore.model.assemble import TrainableModel, assemble
from sbcore.model.build import read_model_config, shape_config
from sbcore.tracking import stage_tracker
from sbcore.train.checkpoint_folder import mark_finished
from sbcore.train.checkpoints import Checkpoints
from sbcore.train.complaint import complain
from sbcore.train.faults import NonFiniteCount
from sbcore.train.files import RunFiles
from sbcore.train.finish import save_model, track_inputs, write_account
from sbcore.train.identity import digest_weights, run_identity
from sbcore.train.inputs import Arguments, Inputs, parse_arguments, read_inputs
from sbcore.train.last_words import last_words
from sbcore.train.lock import alone_in
from sbcore.train.loop import Trainer
from sbcore.train.memory import explaining_model_memory
from sbcore.train.ranks import Ranks, start_ranks
from sbcore.train.rehearsal import rehearse
from sbcore.train.restarts import are_restarted
from sbcore.train.run import TrainingRun
from sbcore.train.setup import make_trainer
from sbcore.train.summary import closing_line, summarise
from sbcore.tune.watch import CurveWatch


def main() -> None:
    """Runs the command; bad input is one line and exit code 2."""
    arguments = parse_arguments()
    try:
        stage = load_stage(arguments.config, TrainStage)
        torch.set_num_threads(stage.train.threads_per_rank)
        ranks = start_ranks(wanted=stage.topology.num_ranks, device=stage.topology.device)
        inputs = read_inputs(stage, arguments, device=ranks.device)
        with alone_in(arguments.out, ranks.host_group):
            _run(stage, ranks, inputs, arguments)
    except SparseBalanceError as error:
        complain(error)
        sys.exit(2)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _run(stage: TrainStage, ranks: Ranks, inputs: Inputs, arguments: Arguments) -> None:
    started = time.perf_counter()
    with explaining_model_memory(stage, rank=ranks.rank):
        made = assemble_model(stage, ranks, arguments)
    trainer = make_trainer(stage, ranks, inputs, made)
    checkpoints = _make_checkpoints(trainer, arguments)
    files = RunFiles(arguments.out, rank=ranks.rank)
    tracking = arguments.tracking if ranks.rank == 0 else None
    with stage_tracker(tracking, stage="train", variant=stage.variant) as tracker:
        track_inputs(tracker, stage, inputs, source=arguments.data)
        faults = NonFiniteCount(limit=stage.train.max_nonfinite_steps)
        watch = CurveWatch(stage.variant)
        run = TrainingRun(trainer, checkpoints, files, tracker, faults, watch)
        with last_words(run):
            if ranks.device.type == "cuda":
                rehearse(trainer, known_sizes=())
            with closing(checkpoints):
                rows = run.train(resume=are_restarted(ranks.host_group) or arguments.resume)
            save_model(made.module, stage, ranks, source=arguments.model, out=files.model)
            if ranks.rank == 0:
                summary = summarise(rows, stage, device=ranks.device)
                seconds = time.perf_counter() - started
                write_account(
                    summary, stage, arguments, files=files, tracker=tracker, seconds=seconds
                )
                mark_finished(checkpoints.folder, inputs.plan.num_steps, checkpoints.identity)
                sys.stderr.write(closing_line(summary) + "\n")


def _make_checkpoints(trainer: Trainer, arguments: Arguments) -> Checkpoints:
    stage, ranks, inputs = trainer.stage, trainer.ranks, trainer.inputs
    return Checkpoints(
        arguments.out / "checkpoints",
        model=trainer.model,
        optimizer=trainer.optimizer,
        ranks=ranks,
        identity=run_identity(
            stage,
            inputs.plan.order_digest,
            data_digest=inputs.store.digest,
            weights_digest=digest_weights(arguments.model, arguments.out, ranks),
        ),
        keep=stage.train.keep_checkpoints,
    )


def assemble_model(stage: TrainStage, ranks: Ranks, arguments: Arguments) -> TrainableModel:
    """Returns the directory's model, or one of the configured shape with random weights."""
    if arguments.model is not None:
        architecture = read_model_config(arguments.model)
    else:
        facts = read_json(arguments.data / "summary.json")
        architecture = shape_config(
            stage.model.shape, vocab_size=facts["vocab_size"], max_tokens=facts["max_sample_tokens"]
        )
    return assemble(
        architecture,
        stage.model,
        stage.train,
        mesh=ranks.mesh(),
        barrier=stage.topology.barrier,
        weights=arguments.model,
        seed=stage.seed,
    )
