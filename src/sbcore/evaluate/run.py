"""The evaluate stage: a model's answers to every task, their scores, and what they rest on."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbcore.artifacts import read_json, write_json
from sbcore.config.stages import EvaluateStage
from sbcore.evaluate.answering import Answering, Asked
from sbcore.evaluate.descriptions import write_descriptions
from sbcore.evaluate.families import refuse_short_limit, summarize_families
from sbcore.evaluate.loading import load_tokenizer
from sbcore.evaluate.metrics import require_packages
from sbcore.evaluate.positions import positions_passed, read_num_positions
from sbcore.evaluate.predictions import refuse_foreign
from sbcore.evaluate.result import TaskResult, summarize
from sbcore.evaluate.shards import Shard
from sbcore.evaluate.task_folder import LoadedTask, load_tasks

if TYPE_CHECKING:
    from rich.progress import Progress


def evaluate(
    config: EvaluateStage,
    *,
    model_dir: Path,
    tokenizer_dir: Path,
    task_dirs: Sequence[Path],
    out: Path,
    shard: Shard,
    progress: "Progress",
) -> dict[str, Any]:
    """Writes ``out/TASK.jsonl`` and ``out/result.json``, returns the content of the latter.

    ``result.json`` is rewritten after every task and says ``partial`` until the last is finished;
    with several ranks, all of which call this, rank 0 finishes the tasks when all have answered.
    Benchmarks with more than scores add their own files (see `sbcore.evaluate.families`).

    Raises:
        SparseBalanceError: The model, the tokenizer or the tasks are not as they should be, or
            ``out`` holds predictions of others.
    """
    settings = config.evaluate
    tasks = load_tasks(task_dirs, settings.tasks, max_examples=settings.max_examples)
    for loaded in tasks:
        require_packages(loaded.task.metric, place=loaded.task.name)
    refuse_short_limit(tasks, max_prompt_tokens=settings.max_prompt_tokens)
    refuse_foreign(out, [loaded.task.name for loaded in tasks])
    needs_template = settings.prompt_style == "chat" and any(loaded.task.chat for loaded in tasks)
    tokenizer = load_tokenizer(tokenizer_dir, needs_template=needs_template)
    num_positions = read_num_positions(model_dir)
    answering = Answering(config, model_dir, tokenizer_dir, tokenizer, out, shard)
    shard.wait()  # until all have seen the folder as it was
    if shard.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        described = {each.task.name: each.description for each in tasks}
        write_descriptions(out, {name: entry for name, entry in described.items() if entry})
        _write_result(answering, [], len(tasks))
    _answer_all(answering, tasks, num_positions=num_positions, progress=progress)
    if shard.rank == 0:
        summarize_families(tasks, out=out)
    shard.wait()
    return dict(read_json(out / "result.json"))


def _answer_all(
    answering: Answering, tasks: list[LoadedTask], *, num_positions: int, progress: "Progress"
) -> None:
    bar = progress.add_task("evaluate", total=sum(len(loaded.rows) for loaded in tasks))
    shard, results = answering.shard, list[TaskResult]()
    begun = answering.begin(tasks)
    is_silent = shard.rank != 0
    for asked in begun:
        task = asked.loaded.task
        progress.update(bar, description=f"evaluate {task.name}")
        prompts = answering.prompts(asked.loaded)
        warning = positions_passed(task, prompts, num_positions=num_positions)
        if warning is not None and not is_silent:
            progress.console.out(warning, highlight=False)
            is_silent = True  # the cure of one task is that of all
        answering.answer(asked, prompts, lambda done: progress.advance(bar, done))
        if shard.is_alone:
            _finish(answering, asked, results, num_tasks=len(tasks), progress=progress)
    shard.wait()
    if shard.rank == 0 and not shard.is_alone:
        for asked in begun:
            _finish(answering, asked, results, num_tasks=len(tasks), progress=progress)


def _finish(
    answering: Answering,
    asked: Asked,
    results: list[TaskResult],
    *,
    num_tasks: int,
    progress: "Progress",
) -> None:
    """Scores a task, adds it to the results and writes those."""
    result = answering.finish(asked)
    results.append(result)
    _write_result(answering, results, num_tasks)
    line = (
        f"{result.loaded.task.name}: {result.scored.score:.2f} ({len(result.loaded.rows)} examples)"
    )
    progress.console.print(line, highlight=False)


def _write_result(answering: Answering, results: Sequence[TaskResult], num_tasks: int) -> None:
    summary = summarize(
        results,
        num_tasks=num_tasks,
        max_prompt_tokens=answering.config.evaluate.max_prompt_tokens,
        prompt_style=answering.config.evaluate.prompt_style,
    )
    write_json(answering.out / "result.json", summary)
