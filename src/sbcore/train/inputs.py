"""What training reads, and every check of it that needs no model: no torch is imported here.

``python -m sbcore.train.inputs`` with the trainer's own words checks them, and the checkpoint to go
on from, before any rank starts, since torchrun wraps the error of a rank in a traceback of its own.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sbcore.artifacts import read_json
from sbcore.config.load import load_stage
from sbcore.config.stages import TrainStage
from sbcore.config.training import ModelConfig, TrainConfig
from sbcore.data.read import TokenStore
from sbcore.device import choose_device, device_name
from sbcore.errors import SparseBalanceError
from sbcore.latency.architecture import trained_shape
from sbcore.latency.made_for import how_trained, refuse_other
from sbcore.latency.model import TableLatencyModel
from sbcore.latency.table import profile_files
from sbcore.model.files import read_architecture
from sbcore.plan.read import PlanFile
from sbcore.train.checkpoint_folder import check_folder, choose
from sbcore.train.identity import RANDOM, UNREAD, known_digest, run_identity

if TYPE_CHECKING:
    import torch

_FOLDERS = (
    ("--config", "train.VARIANT.json, as frozen for this run"),
    ("--data", "folder of the prepared data set"),
    ("--plan", "folder of the variant's plan"),
    ("--latency", "folder of the latency profile"),
    ("--out", "folder to write"),
)


@dataclass(frozen=True)
class Arguments:
    """The words of the command line."""

    config: Path
    data: Path
    plan: Path
    latency: Path
    out: Path
    model: Path | None
    tracking: Path | None
    resume: bool


@dataclass(frozen=True)
class Inputs:
    """What every rank reads."""

    store: TokenStore
    plan: PlanFile
    latency: TableLatencyModel


def parse_arguments() -> Arguments:
    """Returns the command line's words."""
    parser = argparse.ArgumentParser(prog="torchrun -m sbcore.train")
    for name, text in _FOLDERS:
        parser.add_argument(name, help=text, type=Path, required=True)
    parser.add_argument("--model", type=Path, help="model directory; none = random weights")
    parser.add_argument("--tracking", type=Path, help="tracking.json of the run; none = off")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    return Arguments(**vars(parser.parse_args()))


def read_inputs(stage: TrainStage, arguments: Arguments, *, device: "torch.device") -> Inputs:
    """Returns the inputs; raises SparseBalanceError when they do not belong together."""
    plan = PlanFile(arguments.plan / "plan.parquet", index=arguments.data / "index.parquet")
    _check_plan(plan, stage, arguments.plan)
    _check_steps(stage.train, plan.num_steps)
    _check_start(stage.model, arguments.model)
    if arguments.model is not None:
        _check_vocabulary(arguments.model, arguments.data)
    latency = TableLatencyModel.read(
        arguments.latency, block_size=stage.attention.block_size, device=device_name(device)
    )
    _check_table(stage, arguments)
    return Inputs(TokenStore(arguments.data), plan, latency)


def input_files(arguments: Arguments) -> dict[str, Path]:
    """Returns what the manifest names by digest."""
    files = {
        "data": arguments.data / "index.parquet",
        "plan": arguments.plan / "plan.parquet",
        "latency": arguments.latency / "latency.parquet",
    }
    return files | ({"model": arguments.model} if arguments.model else {})


def _check_plan(plan: PlanFile, stage: TrainStage, folder: Path) -> None:
    """Refuses a plan of another variant, for other ranks or another barrier.

    Collectives would hang, or numbers lie.
    """
    if plan.variant != stage.variant:
        raise SparseBalanceError(
            f"{folder / 'plan.parquet'}: variant = {plan.variant}: the plan of another variant "
            f"than {stage.variant}. give --plan the folder of its own."
        )
    made_for = {"num_ranks": plan.num_ranks, "barrier": plan.barrier}
    for key, value in made_for.items():
        wanted = getattr(stage.topology, key)
        if value != wanted:
            raise SparseBalanceError(
                f"{folder / 'plan.parquet'}: {key} = {value}: the plan of another topology, "
                f"topology.{key} is {wanted}. rerun the stage plan."
            )


def _check_steps(train: TrainConfig, num_steps: int) -> None:
    """Refuses before the first step what would come out at the last: no times, no trace."""
    if train.warmup_steps_unmeasured >= num_steps:
        raise SparseBalanceError(
            f"train.warmup_steps_unmeasured = {train.warmup_steps_unmeasured}: the run has "
            f"{num_steps} steps, none is left to measure. use fewer or run more steps."
        )
    beyond = [step for step in train.trace_steps if step >= num_steps]
    if beyond:
        raise SparseBalanceError(
            f"train.trace_steps = {train.trace_steps}: there is no step {beyond[0]}, the run has "
            f"{num_steps}, counted from 0. name others."
        )


def _check_start(model: ModelConfig, given: Path | None) -> None:
    """Refuses random weights where a directory is configured: nobody would see it but the loss."""
    if model.path is not None and given is None:
        raise SparseBalanceError(
            f"model.path = {model.path}: --model is not given, so random weights would be trained. "
            f"add --model {model.path}."
        )


def _check_table(stage: TrainStage, arguments: Arguments) -> None:
    """Refuses a latency table of another model, or of one that was trained otherwise."""
    header = profile_files(arguments.latency)[1]
    head, num_words = read_json(header), read_json(arguments.data / "summary.json")["vocab_size"]
    shape = trained_shape(stage.model, arguments.model, vocab_size=num_words)
    refuse_other(header, head, shape, of="model")
    refuse_other(header, head, how_trained(stage.model, stage.train), of="training")


def _check_vocabulary(model: Path, data: Path) -> None:
    """Refuses tokens that the model has no row for: they would read past its embedding."""
    has = read_architecture(model).get("vocab_size")
    needs = read_json(data / "summary.json")["vocab_size"]
    if not isinstance(has, int) or needs > has:
        raise SparseBalanceError(
            f"{model / 'config.json'}: vocab_size = {has}: the data's tokenizer has {needs} "
            "entries. prepare the data with the model's own tokenizer: data.tokenizer."
        )


def check_checkpoint(stage: TrainStage, inputs: Inputs, arguments: Arguments) -> None:
    """Refuses the checkpoint to go on from; start weights are looked at if all else agrees.

    Raises:
        SparseBalanceError: The newest whole checkpoint is of another training, all are torn, or
            they may not be read.
    """
    folder, model = arguments.out / "checkpoints", arguments.model

    def chosen(weights_digest: str) -> Path | None:
        order, data = inputs.plan.order_digest, inputs.store.digest
        identity = run_identity(stage, order, data_digest=data, weights_digest=weights_digest)
        return choose(folder, identity).path

    check_folder(folder)
    if chosen(RANDOM if model is None else UNREAD) is not None and model is not None:
        chosen(known_digest(model, arguments.out))


def main() -> None:
    """Checks the inputs; bad ones are one line and exit code 2."""
    arguments = parse_arguments()
    try:
        stage = load_stage(arguments.config, TrainStage)
        wanted, local_ranks = stage.topology.device, stage.topology.ranks_per_node
        device = choose_device(wanted, num_ranks=local_ranks, local_rank=0)
        inputs = read_inputs(stage, arguments, device=device)
        if arguments.resume:
            check_checkpoint(stage, inputs, arguments)
    except SparseBalanceError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
