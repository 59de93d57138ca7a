"""The command that scores: a model's answers, or predictions that lie there already."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbcore.cli.options import TrackingFile
from sbcore.cli.stage import Outcome, Stage, run_stage
from sbcore.errors import SparseBalanceError

if TYPE_CHECKING:
    from rich.progress import Progress

    from sbcore.config.stages import EvaluateStage
    from sbcore.evaluate.shards import Shard
    from sbcore.tracking import Tracker

_Folder = Path | None


def evaluate(
    *,
    score_only: Annotated[
        _Folder, typer.Option(help="Score this folder of TASK.jsonl predictions, run no model.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print scores as json.")] = False,
    config: Annotated[
        _Folder, typer.Option(help="This stage's configuration, or a run's whole one (yaml).")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="With a yaml: whose attention; else the baseline's.")
    ] = None,
    model: Annotated[_Folder, typer.Option(help="Hugging Face model directory.")] = None,
    tokenizer: Annotated[_Folder, typer.Option(help="Tokenizer, if not the model's own.")] = None,
    tasks: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with tasks: LongBench, what make-tasks made; or several."),
    ] = None,
    out: Annotated[_Folder, typer.Option(help="Folder to write to.")] = None,
    tracking: TrackingFile = None,
) -> None:
    """Score a model on tasks, or predictions with --score-only.

    On several GPUs: torchrun --nproc-per-node N -m sbcore.cli evaluate ...
    """
    if score_only is not None:
        _print_scores(score_only, as_json=as_json)
        return
    from sbcore.cli.evaluation_settings import read_evaluate

    settings = read_evaluate(_required("config", config), variant)
    model = _required("model", model)
    _evaluate_model(
        settings,
        model=model,
        tokenizer=tokenizer or model,
        tasks=tasks or [_required("tasks", None)],
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
    settings: "EvaluateStage",
    *,
    model: Path,
    tokenizer: Path,
    tasks: Sequence[Path],
    out: Path,
    tracking: Path | None,
) -> None:
    from sbcore.evaluate.run import evaluate as run
    from sbcore.evaluate.shards import this_shard

    with this_shard() as shard:
        ask = partial(
            run,
            settings,
            model_dir=model,
            tokenizer_dir=tokenizer,
            task_dirs=tasks,
            out=out,
            shard=shard,
        )
        if shard.rank != 0:
            _help_quietly(ask)
            return

        def work(progress: "Progress", _: "Tracker") -> Outcome:
            return _outcome(ask(progress=progress), settings, shard, out)

        folders = {f"tasks{number or ''}": folder for number, folder in enumerate(tasks)}
        inputs = {"model": model, **folders}
        stage = Stage("evaluate", settings.variant, inputs, out / "manifest.json", tracking)
        run_stage(stage, settings, work)


def _help_quietly(ask: Callable[..., dict[str, Any]]) -> None:
    """Answers a rank's share; what is wrong with the input is rank 0's to say."""
    from rich.progress import Progress

    try:
        ask(progress=Progress(disable=True))
    except SparseBalanceError:
        raise typer.Exit(2) from None


def _outcome(
    result: dict[str, Any], settings: "EvaluateStage", shard: "Shard", out: Path
) -> Outcome:
    from sbcore.device import device_name
    from sbcore.train.summary import backend_name

    device = shard.device(settings.device)
    scores = {f"scores/{task}": score for task, score in result["scores"].items()}
    return Outcome(
        f"mean score {result['score_mean']:.1f} over {len(scores)} tasks",
        device=device_name(device),
        backend=backend_name(settings.kind, settings.attention, device.type),
        metrics={**scores, "score_mean": result["score_mean"]},
        artifacts=(out / "result.json", *sorted(out.glob("niah.*"))),
    )


COMMANDS = (evaluate,)
