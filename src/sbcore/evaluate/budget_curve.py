"""Which budget a trained model needs: its scores at top_k 1, 2, 4, ... and with full attention.

The budget holds while the prompt is read; the answer is decoded densely over the whole cache, as
in every evaluation here. Each budget is an evaluation of its own (``top_k_4/``, ``full/``), so a
killed run goes on where it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbcore.artifacts import replace_when_done, write_json
from sbcore.config.stages import EvaluateStage
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.rows import PredictionRow, read_rows
from sbcore.evaluate.run import evaluate
from sbcore.evaluate.scoring import score_rows
from sbcore.evaluate.task_folder import LoadedTask, load_tasks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FULL = "full"
_NUM_RESAMPLES = 2000
_SHARED = ("chance", "metrics", "num_examples", "truncation_tokens", "prompt_style")


@dataclass(frozen=True, slots=True)
class _Point:
    top_k: int | None
    result: dict[str, Any]
    examples: dict[str, list[float]]


def doubling_budgets(max_prompt_tokens: int, *, block_size: int) -> list[int]:
    """Returns 1, 2, 4, ... as long as the longest prompt has more blocks, and 1 in any case."""
    num_blocks = max(2, -(-max_prompt_tokens // block_size))
    return [1 << power for power in range(num_blocks.bit_length()) if 1 << power < num_blocks]


def score_budgets(
    config: EvaluateStage,
    *,
    model_dir: Path,
    tokenizer_dir: Path,
    task_dir: Path,
    out: Path,
    top_k: Sequence[int],
) -> dict[str, Any]:
    """Writes ``budget_curve.json`` and ``.png`` to ``out``, returns the content of the former.

    ``top_k`` are the budgets in blocks; full attention is always added. The configuration's own
    top_k is the one the model was trained with, marked in the figure if the variant is sparse.
    ``difference_to_full`` holds 95 % intervals of paired differences, in points; ``enough_top_k``
    for each task the smallest budget from which on it is not distinguishably below full attention.

    Raises:
        SparseBalanceError: The budgets, the model, the tokenizer or the tasks are wrong.
    """
    if not top_k or min(top_k) < 1:
        raise SparseBalanceError(f"top_k = {list(top_k)}: give budgets in blocks, from 1 on.")
    settings = config.evaluate
    tasks = load_tasks(task_dir, settings.tasks, max_examples=settings.max_examples)
    points = []
    for budget in [*sorted(set(top_k)), None]:
        folder = out / (FULL if budget is None else f"top_k_{budget}")
        result = evaluate(
            at_budget(config, budget),
            model_dir=model_dir,
            tokenizer_dir=tokenizer_dir,
            task_dir=task_dir,
            out=folder,
        )
        points.append(_Point(budget, result, _example_scores(tasks, folder)))
    summary = _summarize(config, points)
    write_json(out / "budget_curve.json", summary)
    figure = draw_curve(summary)
    with replace_when_done(out / "budget_curve.png") as part:
        figure.savefig(part, format="png", dpi=200, metadata={"Software": None})
    return summary


def at_budget(config: EvaluateStage, top_k: int | None) -> EvaluateStage:
    """Returns the configuration with sparse attention of this budget, or dense attention."""
    if top_k is None:
        return config.model_copy(update={"kind": "dense"})
    attention = config.attention.model_copy(update={"top_k": top_k})
    return config.model_copy(update={"kind": "sparse", "attention": attention})


def draw_curve(summary: Mapping[str, Any]) -> "Figure":
    """Returns the figure of a ``budget_curve.json``: a line per task, the mean in black."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    points = summary["budgets"]
    labels = [FULL if point["top_k"] is None else str(point["top_k"]) for point in points]
    with mpl.rc_context({"font.size": 9, "figure.constrained_layout.use": True}):
        figure = Figure(figsize=(6.4, 3.6))
        axes = figure.add_subplot()
        for task in points[0]["scores"]:
            axes.plot(labels, [point["scores"][task] for point in points], "o-", ms=4, label=task)
        means = [point["score_mean"] for point in points]
        axes.plot(labels, means, "o-", color="black", lw=2.4, ms=5, label="mean")
        if (trained := str(summary["trained_top_k"])) in labels:
            axes.axvline(labels.index(trained), color="grey", lw=1, ls=":", label="trained with")
        axes.set_ylim(0, 102)  # markers at 100 stay whole
        axes.set_xlabel(
            f"top_k, blocks of {summary['block_size']} tokens, while the prompt is read"
        )
        axes.set_ylabel("score, %")
        axes.grid(visible=True, alpha=0.3)
        figure.legend(loc="outside right upper", frameon=False)
    return figure


def _example_scores(tasks: Sequence[LoadedTask], folder: Path) -> dict[str, list[float]]:
    scores = {}
    for loaded in tasks:
        path = folder / f"{loaded.task.name}.jsonl"
        rows = read_rows(path, PredictionRow)
        scores[loaded.task.name] = [score_rows(loaded.task, [row], path).score for row in rows]
    return scores


def _summarize(config: EvaluateStage, points: Sequence[_Point]) -> dict[str, Any]:
    block_size, full = config.attention.block_size, points[-1]
    budgets = [
        {
            "top_k": point.top_k,
            "budget_tokens": None if point.top_k is None else point.top_k * block_size,
            "scores": point.result["scores"],
            "score_mean": point.result["score_mean"],
            "difference_to_full": {
                task: paired_interval(scores, full.examples[task])
                for task, scores in point.examples.items()
            },
        }
        for point in points
    ]
    return {
        "variant": config.variant,
        "block_size": block_size,
        "trained_top_k": config.attention.top_k if config.kind == "sparse" else None,
        "budgets": budgets,
        "enough_top_k": {task: enough_top_k(budgets, task) for task in full.examples},
        **{key: full.result[key] for key in _SHARED},
    }


def paired_interval(scores: Sequence[float], others: Sequence[float]) -> list[float]:
    """Returns low and high end of the 95 % interval of the mean difference, by paired bootstrap.

    Both are scores of the same examples in the same order. Resampling has a fixed seed.
    """
    differences = np.subtract(scores, others)
    picks = np.random.default_rng(0).integers(
        len(differences), size=(_NUM_RESAMPLES, len(differences))
    )
    low, high = np.percentile(differences[picks].mean(axis=1), [2.5, 97.5])
    return [round(float(low), 2), round(float(high), 2)]


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
