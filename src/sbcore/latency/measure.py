"""The stage `profile-latency`: the model's real layers on the device at hand.

Weights are random, since times do not depend on them. Interrupted, it goes on where it stopped.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbcore.artifacts import digest_text
from sbcore.config.stages import ProfileLatencyStage
from sbcore.device import choose_device
from sbcore.errors import SparseBalanceError
from sbcore.latency.facts import describe_device
from sbcore.latency.grid import GridPoint, grid_points
from sbcore.latency.journal import Journal
from sbcore.latency.write import write_profile

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress
    from transformers import PreTrainedModel

_SEED = 0
"""Of the order of points and the random input; neither changes what is estimated."""

_OPTIONAL = ("linear", "micro_batch")
"""Parts of which points may be left out for want of memory."""


_LEAST_CHECKED = 3
"""Points held out below which an error or a rank correlation says nothing."""


def profile_latency(
    config: ProfileLatencyStage,
    *,
    model_dir: Path | None,
    vocab_size: int,
    out: Path,
    progress: "Progress",
) -> dict[str, Any]:
    """Writes ``latency.parquet``, ``latency.json`` and ``latency.png`` into out; returns the json.

    Raises:
        SparseBalanceError: There is no such device or model, or the grid is too small.
    """
    import torch

    torch.set_num_threads(config.threads)
    device = choose_device(config.device, num_ranks=1, local_rank=0)
    grid = _grid(config)
    device_facts = describe_device(device, config)
    facts = repr((sorted(device_facts.items()), vocab_size, str(model_dir)))
    digest = digest_text(config.model_dump_json() + facts)
    journal = Journal(out / "latency.points.jsonl", digest=digest)
    model = _build(config, model_dir, vocab_size=vocab_size, device=device)
    skipped = _measure(config, model, grid, journal=journal, progress=progress)
    head = device_facts | {"num_layers": model.config.num_hidden_layers, "skipped": skipped}
    written = write_profile(out, head, journal.points, top_k=config.attention.top_k)
    journal.close()
    return written


def _grid(config: ProfileLatencyStage) -> list[GridPoint]:
    """Returns the points to measure; refuses a grid that leaves too little to check it on."""
    block_size, top_k = config.attention.block_size, config.attention.top_k
    points = grid_points(config.latency, block_size=block_size, top_k=top_k, seed=_SEED)
    num_checked = sum(point.held_out and point.part == "attention" for point in points)
    if num_checked < _LEAST_CHECKED:
        raise SparseBalanceError(
            f"latency.lengths = {config.latency.lengths}, top_k = {config.latency.top_k}: only "
            f"{num_checked} points between them to check predictions on. add lengths or budgets."
        )
    return points


def _build(
    config: ProfileLatencyStage, model_dir: Path | None, *, vocab_size: int, device: "torch.device"
) -> "PreTrainedModel":
    import torch

    from sbcore.model.build import build_model, read_model_config, shape_config

    longest = max(config.latency.lengths)
    if model_dir is not None:
        architecture = read_model_config(model_dir)
    else:
        shape = config.model.shape
        architecture = shape_config(shape, vocab_size=vocab_size, max_tokens=longest)
    with device:
        model = build_model(architecture, seed=_SEED, dtype=getattr(torch, config.model.dtype))
    model.train()
    return model


def _measure(
    config: ProfileLatencyStage,
    model: "PreTrainedModel",
    grid: list[GridPoint],
    *,
    journal: Journal,
    progress: "Progress",
) -> list[dict[str, Any]]:
    """Measures what the journal lacks; returns the points left out for want of memory."""
    import torch

    from sbcore.latency.runs import ModelRuns
    from sbcore.latency.sharded import sharded_alone
    from sbcore.latency.timing import Stopwatch

    runs = ModelRuns(model, config.attention, seed=_SEED)
    watch = Stopwatch(runs.device, warmup=config.latency.warmup, repeats=config.latency.repeats)
    task = progress.add_task("latency", total=len(grid))
    skipped = []

    def measure(points: list[GridPoint]) -> None:
        for point in points:
            if not journal.has(point):
                try:
                    journal.add(watch.measure(point, runs.make(point)))
                except torch.OutOfMemoryError:
                    if point.part not in _OPTIONAL:
                        raise SparseBalanceError(_out_of_memory(point)) from None
                    skipped.append(asdict(point))
                model.zero_grad(set_to_none=True)
            progress.advance(task)

    measure([point for point in grid if point.part != "floor"])
    with sharded_alone(model, runs.device):  # last: the model stays sharded
        measure([point for point in grid if point.part == "floor"])
    return skipped


def _out_of_memory(point: GridPoint) -> str:
    return (
        f"latency.lengths = {point.length}: part {point.part} does not fit into the device's "
        "memory. take shorter lengths out of latency.lengths."
    )
