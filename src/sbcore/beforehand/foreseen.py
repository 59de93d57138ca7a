"""What a stage would refuse after minutes, where the configuration alone tells for certain.

No torch is imported here: what the kernels take is said again, and a test compares it with them.
"""

import os
from collections.abc import Iterator

from sbcore.beforehand.demo import most_samples
from sbcore.beforehand.mistake import Mistake, wrong_value
from sbcore.beforehand.prompts import cut_prompts
from sbcore.config.latency_points import (
    LEAST_BUDGETS,
    LEAST_CHECKED,
    LEAST_LENGTHS,
    num_budgets,
    num_checked,
)
from sbcore.config.schema import Config

TRITON_BLOCK_SIZES = (64, 128, 256, 512)
TRITON_MAX_NUM_BLOCKS = 2048
TRITON_MAX_HEAD_DIM = 128


def foreseen(config: Config) -> Iterator[Mistake]:
    """Yields what cannot come out well, whatever the machine is."""
    measured = config.latency.table is None
    sparse = any(variant.attention == "sparse" for variant in config.variants.values())
    if takes_triton(config) and (measured or sparse):
        yield from _kernels(config)
    if measured:
        yield from _grid(config)
        yield from _memory(config)
    yield from _steps(config)
    yield from cut_prompts(config)


def takes_triton(config: Config) -> bool:
    """Returns whether attention runs in triton on every machine; with device auto a CPU may do."""
    backend, device = config.attention.backend, config.topology.device
    return backend == "triton" or (backend == "auto" and device == "cuda")


def may_take_triton(config: Config) -> bool:
    """Returns whether attention runs in triton on some machine."""
    auto = config.attention.backend == "auto" and config.topology.device != "cpu"
    return auto or takes_triton(config)


def _kernels(config: Config) -> Iterator[Mistake]:
    attention, shape = config.attention, config.model.shape
    named = attention.backend == "triton"
    who = "backend triton" if named else "backend auto is triton on topology.device cuda, which"
    if attention.block_size not in TRITON_BLOCK_SIZES:
        sizes = ", ".join(map(str, TRITON_BLOCK_SIZES))
        wrong = f"{who} takes {sizes}. use one of them, or attention.backend: torch."
        yield wrong_value(("attention", "block_size"), attention.block_size, wrong)
    if config.topology.device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        wrong = "needs a GPU, topology.device is cpu. use backend: auto, or another device."
        yield wrong_value(("attention", "backend"), attention.backend, wrong)
    head_dim = shape.head_dim or shape.hidden_size // shape.num_attention_heads
    if config.model.path is None and head_dim > TRITON_MAX_HEAD_DIM:
        wrong = f"{who} takes heads of at most {TRITON_MAX_HEAD_DIM}. make them narrower."
        yield wrong_value(("model", "shape", "head_dim"), head_dim, wrong)
    most = TRITON_MAX_NUM_BLOCKS * attention.block_size
    if config.latency.table is None and config.latency.lengths[-1] > most:
        wrong = (
            f"{who} takes {TRITON_MAX_NUM_BLOCKS} blocks in a sequence, {most} tokens. raise "
            "attention.block_size, or leave out what is longer."
        )
        yield wrong_value(("latency", "lengths"), config.latency.lengths, wrong)


def _grid(config: Config) -> Iterator[Mistake]:
    """Yields what the latency profile refuses to measure, or cannot fit afterwards."""
    grid, attention = config.latency, config.attention
    budgets, checked = num_budgets(grid, attention), num_checked(grid, attention)
    wrong = None
    if len(grid.lengths) < LEAST_LENGTHS:
        wrong = "the latency table needs two lengths to interpolate between. add longer ones."
    elif budgets < LEAST_BUDGETS:
        wrong = (
            f"with latency.top_k = {grid.top_k} all of them take the same number of blocks, so "
            "none tells what a budget costs. add longer lengths or smaller budgets."
        )
    elif checked < LEAST_CHECKED:
        wrong = (
            f"with latency.top_k = {grid.top_k} only {checked} points lie between those of the "
            f"grid, and predictions are checked on {LEAST_CHECKED}. add lengths or budgets."
        )
    if wrong is not None:
        yield wrong_value(("latency", "lengths"), grid.lengths, wrong)


def _memory(config: Config) -> Iterator[Mistake]:
    """Yields a limit that plans could not look up."""
    most = config.topology.max_memory_gib
    if most is not None and config.topology.device == "cpu":
        wrong = "memory is measured on a GPU only, topology.device is cpu. set it to null."
        yield wrong_value(("topology", "max_memory_gib"), most, wrong)


def _steps(config: Config) -> Iterator[Mistake]:
    """Yields what the training refuses to start with: nothing left to measure, no such step."""
    most, train = _most_steps(config), config.train
    if most is None:
        return
    if train.warmup_steps_unmeasured >= most:
        wrong = f"the run has {most} steps at most, none is left to measure. use fewer."
        yield wrong_value(
            ("train", "warmup_steps_unmeasured"), train.warmup_steps_unmeasured, wrong
        )
    if any(step >= most for step in train.trace_steps):
        wrong = f"the run has {most} steps at most, counted from 0. name others."
        yield wrong_value(("train", "trace_steps"), train.trace_steps, wrong)


def _most_steps(config: Config) -> int | None:
    """Returns a number that the run's steps do not pass, None where only the data tell one."""
    sampling, known = config.sampling, []
    if sampling.max_steps:
        known.append(sampling.max_steps)
    if not config.data.files:
        known.append(sampling.num_epochs * -(-most_samples(config) // sampling.global_batch))
    return min(known, default=None)
