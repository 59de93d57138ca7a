"""Which budget a trained model needs: its scores at top_k 1, 2, 4, ... and with full attention.

The budget holds while the prompt is read, and for the answer with ``evaluate.decoding: sparse``.
Each budget is an evaluation of its own (``top_k_4/``, ``full/``), so a killed run goes on where it
was.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbcore.artifacts import replace_when_done, write_json
from sbcore.config.stages import EvaluateStage
from sbcore.evaluate.bootstrap import paired_difference
from sbcore.evaluate.curve_files import FULL, draw_curve, write_curve
from sbcore.evaluate.loading import load_tokenizer
from sbcore.evaluate.prompts import fill_template
from sbcore.evaluate.run import evaluate
from sbcore.evaluate.shards import ALONE
from sbcore.evaluate.task_folder import LoadedTask, load_tasks

if TYPE_CHECKING:
    from rich.progress import Progress

_SHARED = ("chance", "metrics", "num_examples", "truncation_tokens", "prompt_style")


@dataclass(frozen=True, slots=True)
class _Point:
    top_k: int | None
    result: dict[str, Any]


def doubling_budgets(num_tokens: int, *, block_size: int) -> list[int]:
    """Returns 1, 2, 4, ... as long as a prompt of so many tokens has more blocks, and 1 anyhow."""
    num_blocks = max(2, -(-num_tokens // block_size))
    return [1 << power for power in range(num_blocks.bit_length()) if 1 << power < num_blocks]


def score_budgets(
    config: EvaluateStage,
    *,
    model_dir: Path,
    tokenizer_dir: Path,
    task_dirs: Sequence[Path],
    out: Path,
    progress: "Progress",
) -> dict[str, Any]:
    """Writes ``budget_curve.json``, ``.csv`` and ``.png`` to ``out``, returns the first's content.

    Budgets are ``evaluate.curve_top_k``, or doubling ones up to the longest prompt. Full attention
    is always added and, if the variant is sparse, the configuration's own top_k: the one that the
    model was trained with, marked in the figure.
    ``difference_to_full`` holds 95 % intervals of paired differences, in points; ``enough_top_k``
    for each task the smallest budget from which on it is not distinguishably below full attention.

    Raises:
        SparseBalanceError: The model, the tokenizer or the tasks are wrong.
    """
    points = [
        _Point(
            top_k,
            evaluate(
                at_budget(config, top_k),
                model_dir=model_dir,
                tokenizer_dir=tokenizer_dir,
                task_dirs=task_dirs,
                out=out / (FULL if top_k is None else f"top_k_{top_k}"),
                shard=ALONE,
                progress=progress,
            ),
        )
        for top_k in [*_budgets(config, tokenizer_dir, task_dirs), None]
    ]
    summary = _summarize(config, points)
    write_json(out / "budget_curve.json", summary)
    write_curve(summary, out / "budget_curve.csv")
    figure = draw_curve(summary)
    with replace_when_done(out / "budget_curve.png") as part:
        figure.savefig(part, format="png", dpi=200, metadata={"Software": None})
    return summary


def _budgets(config: EvaluateStage, tokenizer_dir: Path, task_dirs: Sequence[Path]) -> list[int]:
    trained = {config.attention.top_k} if config.kind == "sparse" else set()
    asked = config.evaluate.curve_top_k or _doubling(config, tokenizer_dir, task_dirs)
    return sorted(trained.union(asked))


def _doubling(config: EvaluateStage, tokenizer_dir: Path, task_dirs: Sequence[Path]) -> list[int]:
    settings = config.evaluate
    tasks = load_tasks(task_dirs, settings.tasks, max_examples=settings.max_examples)
    tokenizer = load_tokenizer(tokenizer_dir, needs_template=False)
    longest = max(len(tokenizer(text, verbose=False)["input_ids"]) for text in _texts(tasks))
    num_tokens = min(longest, settings.max_prompt_tokens)
    return doubling_budgets(num_tokens, block_size=config.attention.block_size)


def _texts(tasks: Sequence[LoadedTask]) -> Iterator[str]:
    for loaded in tasks:
        for row in loaded.rows:
            yield fill_template(loaded.template, row, place=str(loaded.path))


def at_budget(config: EvaluateStage, top_k: int | None) -> EvaluateStage:
    """Returns the configuration with sparse attention of this budget, or dense attention."""
    if top_k is None:
        return config.model_copy(update={"kind": "dense"})
    attention = config.attention.model_copy(update={"top_k": top_k})
    return config.model_copy(update={"kind": "sparse", "attention": attention})


def _summarize(config: EvaluateStage, points: Sequence[_Point]) -> dict[str, Any]:
    block_size, full = config.attention.block_size, points[-1]
    budgets = [
        {
            "top_k": point.top_k,
            "budget_tokens": None if point.top_k is None else point.top_k * block_size,
            "scores": point.result["scores"],
            "score_mean": point.result["score_mean"],
            "difference_to_full": _intervals(point, full),
        }
        for point in points
    ]
    return {
        "variant": config.variant,
        "block_size": block_size,
        "decoding": config.evaluate.decoding,
        "trained_top_k": config.attention.top_k if config.kind == "sparse" else None,
        "budgets": budgets,
        "enough_top_k": {task: enough_top_k(budgets, task) for task in full.result["scores"]},
        **{key: full.result[key] for key in _SHARED},
    }


def _intervals(point: _Point, full: _Point) -> dict[str, list[float]]:
    """Returns low and high end of the difference to full attention, by task."""
    found = {}
    for task, scores in point.result["example_scores"].items():
        both = ({task: scores}, {task: full.result["example_scores"][task]})
        difference = paired_difference(*both)
        found[task] = [difference.low, difference.high]
    return found


def enough_top_k(budgets: Sequence[Mapping[str, Any]], task: str) -> int | None:
    """Returns the smallest budget that is not distinguishable from full attention, or None.

    No larger one is distinguishably below it either. Few examples tell little apart, so read it
    together with their number.
    """
    enough = None
    for point in reversed(budgets[:-1]):
        if point["difference_to_full"][task][1] < 0:
            break
        enough = point["top_k"]
    return enough
