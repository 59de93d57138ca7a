"""Commands around an evaluation: tasks to make for it, the budget that a model needs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sbcore.cli.options import Out, TrackingFile
from sbcore.cli.stage import Outcome, Stage, run_stage

if TYPE_CHECKING:
    from rich.progress import Progress

    from sbcore.tracking import Tracker

Config = Annotated[
    Path, typer.Option(help="The stage's configuration, or a run's whole one (yaml).")
]


def make_tasks(
    *,
    config: Config,
    tokenizer: Annotated[Path, typer.Option(help="Tokenizer that lengths are counted with.")],
    out: Out,
    tracking: TrackingFile = None,
) -> None:
    """Make NIAH and RULER tasks, take over RULER's own files and LongBench v2."""
    from sbcore.cli.evaluation_settings import read_make_tasks

    settings = read_make_tasks(config)

    def work(progress: "Progress", _: "Tracker") -> Outcome:
        from sbcore.evaluate.make_tasks import make_tasks as make

        made = make(settings, tokenizer_dir=tokenizer, out=out, progress=progress)
        counts = ", ".join(f"{name}: {len(tasks)} tasks" for name, tasks in made.items())
        return Outcome(f"{counts}, in {out}", device="cpu", backend="tokenizers")

    stage = Stage("make-tasks", None, {"tokenizer": tokenizer}, out / "manifest.json", tracking)
    run_stage(stage, settings, work)


def budget_curve(
    *,
    config: Config,
    variant: Annotated[
        str | None, typer.Option(help="With a yaml: whose attention; else the baseline's.")
    ] = None,
    model: Annotated[Path, typer.Option(help="Hugging Face model directory.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="Tokenizer, if not the model's own.")
    ] = None,
    tasks: Annotated[list[Path], typer.Option(help="Folder with tasks; or several.")],
    out: Out,
    tracking: TrackingFile = None,
) -> None:
    """Score a model at top_k 1, 2, 4, ... and with full attention: which budget does it need?"""
    from sbcore.cli.evaluation_settings import read_evaluate

    settings = read_evaluate(config, variant)

    def work(progress: "Progress", _: "Tracker") -> Outcome:
        from sbcore.device import choose_device, device_name
        from sbcore.evaluate.budget_curve import score_budgets

        curve = score_budgets(
            settings,
            model_dir=model,
            tokenizer_dir=tokenizer or model,
            task_dirs=tasks,
            out=out,
            progress=progress,
        )
        means = {str(point["top_k"] or "full"): point["score_mean"] for point in curve["budgets"]}
        return Outcome(
            "mean score by top_k: " + ", ".join(f"{k}: {mean:.1f}" for k, mean in means.items()),
            device=device_name(choose_device(settings.device, num_ranks=1, local_rank=0)),
            backend=settings.attention.backend,
            metrics={f"score_mean/top_k_{k}": mean for k, mean in means.items()},
            artifacts=tuple(out / f"budget_curve.{kind}" for kind in ("json", "csv", "png")),
        )

    inputs = {"model": model}
    stage = Stage("budget-curve", settings.variant, inputs, out / "manifest.json", tracking)
    run_stage(stage, settings, work)


COMMANDS = (make_tasks, budget_curve)
