"""Commands that measure: the lengths of the data, the latency of the model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sbcore.cli.options import Out, StageConfig, TrackingFile
from sbcore.cli.stage import Outcome, Stage, run_stage

if TYPE_CHECKING:
    from rich.progress import Progress

    from sbcore.tracking import Tracker


def profile_lengths(
    *,
    config: StageConfig,
    index: Annotated[Path, typer.Option(help="index.parquet of the prepared data.")],
    out: Out,
    tracking: TrackingFile = None,
) -> None:
    """Describe the length distribution in numbers and a picture."""
    from sbcore.config.load import load_stage
    from sbcore.config.stages import ProfileLengthsStage

    settings = load_stage(config, ProfileLengthsStage)

    def work(_: "Progress", __: "Tracker") -> Outcome:
        from sbcore.artifacts import read_json
        from sbcore.lengths.profile import profile_lengths as profile

        profile(settings, index=index, out=out)
        found = read_json(out / "lengths.json")
        return Outcome(
            f"median {found['p50']:,.0f} tokens, 99 % below {found['p99']:,.0f}, "
            f"longest {found['max']:,.0f}",
            device="cpu",
            backend="polars",
            metrics={key: found[key] for key in ("mean", "p50", "p99", "max")},
            artifacts=(out / "lengths.json", out / "lengths.png"),
        )

    manifest = out / "lengths.manifest.json"
    run_stage(Stage("profile-lengths", None, {"index": index}, manifest, tracking), settings, work)


def profile_latency(
    *,
    config: StageConfig,
    data: Annotated[
        Path | None,
        typer.Option(help="Prepared data: its vocabulary sizes the head. Or a built-in shape."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model directory; without it the configured shape.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the files: NAME.parquet and so on.")] = "latency",
    out: Out,
    tracking: TrackingFile = None,
) -> None:
    """Measure the model by length and top_k here, and whole micro-batches on all ranks."""
    from sbcore.config.load import load_stage
    from sbcore.config.stages import ProfileLatencyStage

    settings = load_stage(config, ProfileLatencyStage)

    def work(progress: "Progress", _: "Tracker") -> Outcome:
        from sbcore.artifacts import read_json
        from sbcore.latency.measure import profile_latency as profile
        from sbcore.latency.show import closing_sentence

        vocab_size = None if data is None else read_json(data / "summary.json")["vocab_size"]
        found = profile(
            settings, model_dir=model, vocab_size=vocab_size, out=out, progress=progress, name=name
        )
        return Outcome(
            closing_sentence(found),
            device=found["device"],
            backend=found["backend"],
            metrics={key: found["error"][key] for key in ("mape", "regret", "micro_batch_mape")},
            artifacts=tuple(out / f"{name}.{kind}" for kind in ("json", "parquet", "png")),
        )

    inputs = {"model": model / "config.json"} if model else {}
    if settings.latency.table is not None:
        inputs["table"] = Path(settings.latency.table)
    manifest = out / f"{name}.manifest.json"
    run_stage(Stage("profile-latency", None, inputs, manifest, tracking), settings, work)


COMMANDS = (profile_lengths, profile_latency)
