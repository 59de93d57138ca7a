"""The words of the command line, checked before anything is built."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sbcore.config.load import load_config
from sbcore.config.schema import Config
from sbcore.config.shapes import SHAPES
from sbcore.config.training import ModelShape
from sbcore.errors import SparseBalanceError, unknown_name
from sbcore.types import Barrier


@dataclass(frozen=True)
class Arguments:
    """What to compare, where, and for how long."""

    config: Path
    lengths: list[Path]
    latency: Path
    out: Path
    barriers: list[Barrier]
    global_batches: list[int]
    variants: list[str]
    shape: str | None
    rounds: int
    seconds: float
    commit: str | None


def parse_arguments(words: Sequence[str] | None) -> Arguments:
    """Returns the command line's words; None takes those of this process."""
    parser = argparse.ArgumentParser(prog="torchrun -m sbcore.ablation")
    paths = {"--config": "configuration, yaml", "--latency": "folder of the latency profile"}
    for name, text in (paths | {"--out": "folder to write, or to add to"}).items():
        parser.add_argument(name, help=text, type=Path, required=True)
    parser.add_argument("--lengths", help="csv files", type=Path, nargs="+", required=True)
    trained = [Barrier.MICRO, Barrier.STEP]
    parser.add_argument("--barriers", type=Barrier, choices=trained, nargs="+", required=True)
    parser.add_argument("--global-batches", type=int, nargs="+", required=True)
    rounds = "measured rounds that the folder shall hold of every setting in the end"
    parser.add_argument("--rounds", help=rounds, type=int, required=True)
    parser.add_argument("--seconds", help="begin no round after", type=float, required=True)
    parser.add_argument("--variants", help="default: all configured", nargs="+", default=[])
    parser.add_argument("--shape", help="default: as configured")
    parser.add_argument("--commit", help="where the checkout is not at hand")
    return Arguments(**vars(parser.parse_args(words)))


def configured(arguments: Arguments) -> Config:
    """Returns the configuration with the shape asked for.

    Raises:
        SparseBalanceError: The shape is unknown, or says nothing of its vocabulary.
    """
    config, name = load_config(arguments.config), arguments.shape
    if name is not None:
        if name not in SHAPES:
            raise SparseBalanceError(unknown_name("--shape", name, SHAPES))
        shape = next(ModelShape.model_validate(keys) for n, keys in SHAPES.items() if n == name)
        config = config.model_copy(
            update={"model": config.model.model_copy(update={"shape": shape})}
        )
    if config.model.shape.vocab_size is None:
        raise SparseBalanceError(
            f"{arguments.config}: model.shape.vocab_size = None: random tokens need a vocabulary. "
            f"set it, or take a built-in shape: {', '.join(SHAPES)}."
        )
    return config


def shape_name(shape: ModelShape) -> str:
    """Returns the name of a built-in shape, the layers and width of another."""
    for name, keys in SHAPES.items():
        if ModelShape.model_validate(keys) == shape:
            return name
    return f"{shape.num_hidden_layers} layers of {shape.hidden_size}"


def chosen_variants(config: Config, names: Sequence[str]) -> list[str]:
    """Returns the variants to run, all of them if none is named.

    Raises:
        SparseBalanceError: One of them is not configured, or the baseline is not among them.
    """
    chosen = list(dict.fromkeys(names)) or list(config.variants)
    for name in chosen:
        if name not in config.variants:
            raise SparseBalanceError(unknown_name("--variants", name, config.variants))
    if config.baseline not in chosen:
        raise SparseBalanceError(
            f"--variants = {' '.join(chosen)}: the baseline {config.baseline} is not among them. "
            "name it too: speedups are relative to it."
        )
    return chosen
