"""Commands that make the inputs of a run: the demo's data and base model, the prepared data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sbcore.cli.options import Out, StageConfig, TrackingFile
from sbcore.cli.stage import Outcome, Stage, run_stage

if TYPE_CHECKING:
    from rich.progress import Progress

    from sbcore.tracking import Tracker


def make_demo(*, config: StageConfig, out: Out, tracking: TrackingFile = None) -> None:
    """Make the demo's data set, tokenizer and tasks from the seed."""
    from sbcore.config.load import load_stage
    from sbcore.config.stages import DemoStage

    settings = load_stage(config, DemoStage)

    def work(progress: "Progress", _: "Tracker") -> Outcome:
        from sbcore.demo.dataset import make_demo as make

        make(settings, out=out, progress=progress)
        count = settings.demo.num_samples
        return Outcome(f"{count} samples in {out}", device="cpu", backend="numpy")

    stage = Stage("make-demo", None, {}, out / "manifest.json", tracking)
    run_stage(stage, settings, work)


def make_base(
    *,
    config: StageConfig,
    demo: Annotated[Path, typer.Option(help="Folder that make-demo wrote.")],
    out: Out,
    tracking: TrackingFile = None,
) -> None:
    """Train the small base model that every variant of the demo continues."""
    from sbcore.config.load import load_stage
    from sbcore.config.stages import BaseStage

    settings = load_stage(config, BaseStage)

    def work(progress: "Progress", _: "Tracker") -> Outcome:
        from sbcore.demo.base_model import train_base
        from sbcore.device import choose_device, device_name

        device = choose_device(settings.device, num_ranks=1, local_rank=0)
        train_base(settings, demo=demo, out=out, device=device, progress=progress)
        return Outcome(f"model in {out}", device=device_name(device), backend="sdpa")

    stage = Stage("make-base", None, {"demo": demo}, out / "manifest.json", tracking)
    run_stage(stage, settings, work)


def prepare(
    files: Annotated[list[Path], typer.Argument(help="jsonl or parquet files.")],
    *,
    config: StageConfig,
    tokenizer: Annotated[Path, typer.Option(help="Hugging Face tokenizer directory.")],
    out: Out,
    tracking: TrackingFile = None,
) -> None:
    """Tokenize a data set and mask its prompts out of the loss."""
    from sbcore.config.load import load_stage
    from sbcore.config.stages import PrepareStage

    settings = load_stage(config, PrepareStage)

    def work(progress: "Progress", tracker: "Tracker") -> Outcome:
        from sbcore.data.prepare import prepare as prepare_data

        summary = prepare_data(
            settings, files=files, tokenizer=tokenizer, out=out, progress=progress
        )
        _show_dataset(tracker, out, summary.data_digest)
        skipped = sum(summary.num_skipped.values())
        return Outcome(
            f"{summary.num_samples:,} samples, {summary.num_tokens:,} tokens of which "
            f"{summary.num_target_tokens:,} are learnt, {skipped} lines skipped, "
            f"{summary.num_dropped} samples dropped, {summary.num_truncated} truncated",
            device="cpu",
            backend="tokenizers",
            metrics={
                "num_samples": summary.num_samples,
                "num_tokens": summary.num_tokens,
                "num_target_tokens": summary.num_target_tokens,
            },
            artifacts=(out / "summary.json",),
        )

    inputs = {str(file): file for file in files} | {"tokenizer": tokenizer}
    stage = Stage("prepare", None, inputs, out / "manifest.json", tracking)
    run_stage(stage, settings, work)


def _show_dataset(tracker: "Tracker", out: Path, digest: str) -> None:
    from sbcore.data.read import TokenStore

    store = TokenStore(out)
    tracker.dataset("train", store.lengths, source=out, digest=digest, context="training")


COMMANDS = (make_demo, make_base, prepare)
