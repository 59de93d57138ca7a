"""The stage `profile-latency`: the model's real layers on the device at hand.

Weights are random, since times do not depend on them. Interrupted, it goes on where it stopped.
"""

import subprocess
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbcore.artifacts import digest_text, package_versions, write_json
from sbcore.config.stages import ProfileLatencyStage
from sbcore.device import choose_device, device_name
from sbcore.errors import SparseBalanceError
from sbcore.latency.analytic import AnalyticLatencyModel, fit_coefficients
from sbcore.latency.chart import draw_chart
from sbcore.latency.grid import GridPoint, grid_points
from sbcore.latency.journal import Journal
from sbcore.latency.model import TableLatencyModel, fit_table, sequence_shares
from sbcore.latency.quality import measure_quality
from sbcore.latency.table import CHART, FORMAT_VERSION, HEADER, TABLE, MeasuredPoint, write_points

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
    written = _write(out, head, journal.points, top_k=config.attention.top_k)
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


def describe_device(device: "torch.device", config: ProfileLatencyStage) -> dict[str, Any]:
    """Returns what the numbers hold for: device, driver, libraries, dtype, backend, blocks."""
    versions = package_versions()
    gpu = device.type == "cuda"
    backend = config.attention.backend
    return {
        "format_version": FORMAT_VERSION,
        "device": device_name(device),
        "driver": _driver_version() if gpu else None,
        "threads": config.threads,
        "torch": versions["torch"],
        "triton": versions.get("triton"),
        "dtype": config.model.dtype,
        "backend": ("triton" if gpu else "torch") if backend == "auto" else backend,
        "block_size": config.attention.block_size,
    }


def _driver_version() -> str:
    """Returns the NVIDIA driver's version, as nvidia-smi tells it."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.splitlines()[0].strip()


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
    from sbcore.latency.timing import Stopwatch

    runs = ModelRuns(model, config.attention, seed=_SEED)
    watch = Stopwatch(runs.device, warmup=config.latency.warmup, repeats=config.latency.repeats)
    task = progress.add_task("latency", total=len(grid))
    skipped = []
    for point in grid:
        if not journal.has(point):
            try:
                journal.add(watch.measure(point, runs.make(point)))
            except torch.OutOfMemoryError:
                if point.part not in _OPTIONAL:
                    raise SparseBalanceError(_out_of_memory(point)) from None
                skipped.append(asdict(point))
            model.zero_grad(set_to_none=True)
        progress.advance(task)
    return skipped


def _out_of_memory(point: GridPoint) -> str:
    return (
        f"latency.lengths = {point.length}: part {point.part} does not fit into the device's "
        "memory. take shorter lengths out of latency.lengths."
    )


def _write(
    out: Path, head: dict[str, Any], points: list[MeasuredPoint], *, top_k: int
) -> dict[str, Any]:
    """Writes the three files; the table comes before the header that vouches for it."""
    points = sorted(points, key=lambda p: (p.part, p.length, p.top_k, p.num_sequences))
    block_size = head["block_size"]
    try:
        model = fit_table(points, block_size=block_size, num_layers=head["num_layers"])
    except ValueError as error:
        raise SparseBalanceError(f"latency: {error}. add points to the grid.") from None
    shares = sequence_shares(points, call_ms=model.call_ms)
    analytic = _fit_analytic(model, [p for p in shares if not p.held_out])
    check = partial(
        measure_quality,
        attention=[p for p in shares if p.held_out],
        micro_batches=[p for p in points if p.part == "micro_batch"],
        top_k=top_k,
        block_size=block_size,
        seed=_SEED,
    )
    head = head | {
        "floor_ms": model.floor_ms,
        "constant_ms": model.constant_ms,
        "call_ms": model.call_ms,
        "ms_per_token": model.ms_per_token,
        "optimizer_ms": next(p.median_ms for p in points if p.part == "optimizer"),
        "adjustments": asdict(model.surface.adjustments),
        "error": asdict(check(model)),
        "analytic": {
            "coefficients": analytic.coefficients.tolist(),
            "error": asdict(check(analytic)),
        },
    }
    write_points(out / TABLE, points)
    draw_chart(out / CHART, model, points, device=head["device"])
    write_json(out / HEADER, head)
    return head


def _fit_analytic(model: TableLatencyModel, fitted: list[MeasuredPoint]) -> AnalyticLatencyModel:
    """Returns the formula fitted to the same points, to compare the table with."""
    return AnalyticLatencyModel(
        block_size=model.surface.block_size,
        num_layers=model.num_layers,
        floor_ms=model.floor_ms,
        constant_ms=model.constant_ms,
        ms_per_token=model.ms_per_token,
        coefficients=fit_coefficients(fitted, block_size=model.surface.block_size),
    )
