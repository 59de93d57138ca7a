"""The command that scores: a model's answers, or predictions that lie there already."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sbcore.cli.options import TrackingFile
from sbcore.cli.stage import Outcome, Stage, run_stage
from sbcore.errors import SparseBalanceError

if TYPE_CHECKING:
    from rich.progress import Progress

    from sbcore.tracking import Tracker

_Folder = Path | None


def evaluate(
    *,
    score_only: Annotated[
        _Folder, typer.Option(help="Score this folder of TASK.jsonl predictions, run no model.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print scores as json.")] = False,
    config: Annotated[_Folder, typer.Option(help="This stage's configuration.")] = None,
    model: Annotated[_Folder, typer.Option(help="Hugging Face model directory.")] = None,
    tokenizer: Annotated[_Folder, typer.Option(help="Tokenizer directory.")] = None,
    tasks: Annotated[_Folder, typer.Option(help="LongBench folder, or the demo's tasks.")] = None,
    out: Annotated[_Folder, typer.Option(help="Folder to write to.")] = None,
    tracking: TrackingFile = None,
) -> None:
    """Score a model on tasks, or predictions with --score-only."""
    if score_only is not None:
        _print_scores(score_only, as_json=as_json)
        return
    _evaluate_model(
        config=_required("config", config),
        model=_required("model", model),
        tokenizer=_required("tokenizer", tokenizer),
        tasks=_required("tasks", tasks),
        out=_required("out", out),
        tracking=tracking,
    )


def _required(option: str, value: Path | None) -> Path:
    if value is None:
        raise SparseBalanceError(f"--{option}: missing. give it, or use --score-only FOLDER.")
    return value


def _print_scores(folder: Path, *, as_json: bool) -> None:
    from sbcore.evaluate import scores

    found = scores.score_predictions(folder)
    (scores.print_scores_json if as_json else scores.print_scores_table)(found)


def _evaluate_model(
    *,
    config: Path,
    model: Path,
    tokenizer: Path,
    tasks: Path,
    out: Path,
    tracking: Path | None,
) -> None:
    from sbcore.config.load import load_stage
    from sbcore.config.stages import EvaluateStage

    settings = load_stage(config, EvaluateStage)

    def work(_: "Progress", __: "Tracker") -> Outcome:
        from sbcore.device import choose_device, device_name
        from sbcore.evaluate.run import evaluate as run
        from sbcore.train.finish import backend_name

        result = run(settings, model_dir=model, tokenizer_dir=tokenizer, task_dir=tasks, out=out)
        device = choose_device(settings.device, num_ranks=1, local_rank=0)
        scores = {f"scores/{task}": score for task, score in result["scores"].items()}
        return Outcome(
            f"mean score {result['score_mean']:.1f} over {len(scores)} tasks",
            device=device_name(device),
            backend=backend_name(settings.kind, settings.attention, device.type),
            metrics={**scores, "score_mean": result["score_mean"]},
            artifacts=(out / "result.json",),
        )

    inputs = {"model": model, "tasks": tasks}
    stage = Stage("evaluate", settings.variant, inputs, out / "manifest.json", tracking)
    run_stage(stage, settings, work)


COMMANDS = (evaluate,)
