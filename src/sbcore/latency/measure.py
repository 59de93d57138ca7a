"""The stage `profile-latency`: the model's real layers on the device at hand.

The grid is measured in this process, a layer at a time; whole micro-batches by all ranks, as in
training. Interrupted, the grid goes on where it stopped. Times do not depend on the weights, which
are random.
"""

import gc
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbcore.artifacts import digest_text
from sbcore.config.latency_points import LEAST_CHECKED
from sbcore.config.stages import ProfileLatencyStage
from sbcore.device import choose_device
from sbcore.errors import SparseBalanceError
from sbcore.latency.architecture import read_architecture
from sbcore.latency.drift import Drift
from sbcore.latency.facts import describe
from sbcore.latency.fit import fit_parts, linear_points
from sbcore.latency.grid import grid_points, reference_point
from sbcore.latency.journal import Journal
from sbcore.latency.launch import started_ranks
from sbcore.latency.micro_batches import ROUNDS, MicroBatch, choose_micro_batches
from sbcore.latency.model import parts_model
from sbcore.latency.reuse import use_table
from sbcore.latency.table import NAME, GridPoint, MeasuredPoint
from sbcore.latency.write import write_profile

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress
    from transformers import PretrainedConfig

_SEED = 0
"""Of the order of points and the random input; neither changes what is estimated."""

_PACK_TOKENS = 16_384
"""Tokens of a measured pack on a GPU: enough to fill it. A CPU is as fast without packs."""

_REFERENCES = 8
"""Times that the reference point is measured, spread over the run."""


def profile_latency(
    config: ProfileLatencyStage,
    *,
    model_dir: Path | None,
    vocab_size: int | None,
    out: Path,
    progress: "Progress",
    name: str = NAME,
) -> dict[str, Any]:
    """Writes NAME.parquet, NAME.json and NAME.png into out; returns the json.

    Raises:
        SparseBalanceError: There is no such device or model, the grid is too small, or the table
            to use in place of a measurement is another device's or model's.
    """
    import torch

    torch.set_num_threads(config.threads)
    asked = config.num_ranks if config.device == "auto" else 1
    device = choose_device(config.device, num_ranks=asked, local_rank=0)
    architecture = read_architecture(config, model_dir, vocab_size=vocab_size)
    num_ranks = _ranks_here(config, device)
    head = describe(device, config, architecture, num_ranks=num_ranks)
    if config.latency.table is not None:
        return use_table(Path(config.latency.table), head, config, out=out, name=name)
    started = time.perf_counter()
    grid = _grid(config, device)
    digest = digest_text(config.model_dump_json() + repr((sorted(head.items()), str(model_dir))))
    journal = Journal(out / f"{name}.points.jsonl", digest=digest)
    with ExitStack() as stack:
        start = partial(stack.enter_context, started_ranks(num_ranks, threads=config.threads))
        early = start() if device.type == "cuda" else None  # on a CPU they would be in the way
        drift = _measure(config, architecture, grid, device, journal=journal, progress=progress)
        measured = time.perf_counter()
        points = [*journal.points, *linear_points(journal.points, num_layers=head["num_layers"])]
        wanted = _micro_batches(config, points, head)
        whole = (early or start()).measure(
            config,
            wanted,
            model_dir=model_dir,
            vocab_size=vocab_size,
            device_type=device.type,
            done=_counter(wanted, progress),
        )
    head |= {
        "model_gib": whole.model_gib,
        "skipped": whole.skipped,
        "drift": drift.describe(),
        "seconds": {
            "grid": round(measured - started, 1),
            "micro_batches": round(time.perf_counter() - measured, 1),
        },
    }
    top_k = config.attention.top_k
    written = write_profile(out, head, [*points, *whole.points], name=name, top_k=top_k)
    journal.close()
    return written


def _ranks_here(config: ProfileLatencyStage, device: "torch.device") -> int:
    """Returns how many ranks this host can start; says so when they are fewer than configured."""
    import torch

    if device.type == "cpu" or torch.cuda.device_count() >= config.num_ranks:
        return config.num_ranks
    fewer = torch.cuda.device_count()
    sys.stderr.write(
        f"profile-latency: topology.num_ranks = {config.num_ranks}: {fewer} GPUs here: whole "
        f"micro-batches are measured with {fewer} ranks. Their transfers may differ from yours.\n"
    )
    return fewer


def _grid(config: ProfileLatencyStage, device: "torch.device") -> list[GridPoint]:
    """Returns the points to measure; refuses a grid that leaves too little to check it on."""
    pack_tokens = _PACK_TOKENS if device.type == "cuda" else 0
    points = grid_points(config, pack_tokens=pack_tokens, seed=_SEED)
    num_checked = sum(point.held_out and point.part == "attention" for point in points)
    if num_checked < LEAST_CHECKED:
        raise SparseBalanceError(
            f"latency.lengths = {config.latency.lengths}, top_k = {config.latency.top_k}: only "
            f"{num_checked} points between them to check predictions on. add lengths or budgets."
        )
    return points


def _measure(
    config: ProfileLatencyStage,
    architecture: "PretrainedConfig",
    grid: list[GridPoint],
    device: "torch.device",
    *,
    journal: Journal,
    progress: "Progress",
) -> Drift:
    """Measures what the journal lacks, the reference point in between; returns its drift."""
    from sbcore.latency.layer import LayerRuns
    from sbcore.latency.timing import Stopwatch

    runs = LayerRuns(architecture, config, device=device, seed=_SEED)
    watch = Stopwatch(device, config.latency)
    drift, reference = Drift(), reference_point(config)
    task = progress.add_task("latency", total=len(grid))
    for number, point in enumerate(grid):
        if number % max(len(grid) // _REFERENCES, 1) == 0:
            drift.medians_ms.append(float(np.median(watch.measure(runs.make(reference)))))
        if not journal.has(point):
            journal.add(_point(point, runs, watch))
        progress.advance(task)
    return drift


def _point(point: GridPoint, runs: Any, watch: Any) -> MeasuredPoint:
    import torch

    try:
        return MeasuredPoint.of(point, watch.measure(runs.make(point)), peak_gib=None)
    except torch.OutOfMemoryError:
        raise SparseBalanceError(
            f"latency.lengths = {point.length}: part {point.part} does not fit into the device's "
            "memory. take shorter lengths out of latency.lengths."
        ) from None


def _micro_batches(
    config: ProfileLatencyStage, points: list[MeasuredPoint], head: dict[str, Any]
) -> list[MicroBatch]:
    """Returns what the ranks are to run; leaves the device's memory to them."""
    import torch

    gpu = head["device_type"] == "cuda"
    if gpu:
        gc.collect()
        torch.cuda.empty_cache()
    block_size, num_layers = head["block_size"], head["num_layers"]
    try:
        model = parts_model(fit_parts(points, block_size=block_size, num_layers=num_layers))
    except ValueError as error:
        raise SparseBalanceError(f"latency: {error}. add points to the grid.") from None
    return choose_micro_batches(config, model, gpu=gpu)


def _counter(wanted: list[MicroBatch], progress: "Progress") -> Callable[[], None]:
    """Returns what moves the bar on: each micro-batch is run first, then timed in rounds."""
    num_timed = sum(one.part != "memory" for one in wanted)
    task = progress.add_task("micro-batches", total=len(wanted) + ROUNDS * num_timed)
    return lambda: progress.advance(task)
