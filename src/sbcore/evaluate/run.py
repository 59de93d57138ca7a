"""The evaluate stage: a model's answers to every task, their scores, and what they rest on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from sbcore.artifacts import write_json
from sbcore.config.stages import EvaluateStage
from sbcore.evaluate.answering import Answering
from sbcore.evaluate.descriptions import copy_descriptions
from sbcore.evaluate.loading import load_tokenizer
from sbcore.evaluate.result import TaskResult, summarize
from sbcore.evaluate.task_folder import LoadedTask, load_tasks


def evaluate(
    config: EvaluateStage,
    *,
    model_dir: Path,
    tokenizer_dir: Path,
    task_dir: Path,
    out: Path,
) -> dict[str, Any]:
    """Writes ``out/TASK.jsonl`` and ``out/result.json``, returns the content of the latter.

    ``result.json`` is rewritten after every task and says ``partial`` until the last is finished.

    Raises:
        SparseBalanceError: The model, the tokenizer or the tasks are not as they should be.
    """
    settings = config.evaluate
    tasks = load_tasks(task_dir, settings.tasks, max_examples=settings.max_examples)
    needs_template = settings.prompt_style == "chat" and any(loaded.task.chat for loaded in tasks)
    tokenizer = load_tokenizer(tokenizer_dir, needs_template=needs_template)
    answering = Answering(config, model_dir, tokenizer_dir, tokenizer, out)
    out.mkdir(parents=True, exist_ok=True)
    copy_descriptions(task_dir, out)
    return _answer_all(answering, tasks)


def _answer_all(answering: Answering, tasks: list[LoadedTask]) -> dict[str, Any]:
    results: list[TaskResult] = []
    summary = _write_result(answering, results, len(tasks))
    with _progress() as progress:
        for loaded in tasks:
            bar = progress.add_task(loaded.task.name, total=len(loaded.rows))
            result = answering.finish(loaded, _bar_update(progress, bar))
            results.append(result)
            summary = _write_result(answering, results, len(tasks))
            progress.console.print(
                f"{loaded.task.name}: {result.scored.score:.2f} ({len(loaded.rows)} examples)",
                highlight=False,
            )
    return summary


def _bar_update(progress: Progress, bar: TaskID) -> Callable[[int], None]:
    return lambda done: progress.update(bar, completed=done)


def _write_result(
    answering: Answering, results: list[TaskResult], num_tasks: int
) -> dict[str, Any]:
    summary = summarize(
        results,
        num_tasks=num_tasks,
        max_prompt_tokens=answering.config.evaluate.max_prompt_tokens,
        prompt_style=answering.config.evaluate.prompt_style,
    )
    write_json(answering.out / "result.json", summary)
    return summary


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
