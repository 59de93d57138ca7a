"""Which budget a trained model needs: its scores at top_k 1, 2, 4, ... and with full attention.

The budget holds while the prompt is read; the answer is decoded densely over the whole cache, as
in every evaluation here. Each budget is an evaluation of its own (``top_k_4/``, ``full/``), so a
killed run goes on where it was.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbcore.artifacts import replace_when_done, write_json
from sbcore.config.stages import EvaluateStage
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.prompts import PromptStyle
from sbcore.evaluate.run import evaluate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FULL = "full"
_SHARED = ("chance", "metrics", "num_examples", "truncation_tokens", "prompt_style")


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
    prompt_style: PromptStyle,
    top_k: Sequence[int],
) -> dict[str, Any]:
    """Writes ``budget_curve.json`` and ``.png`` to ``out``, returns the content of the former.

    ``top_k`` are the budgets in blocks; full attention is always added. The configuration's own
    top_k is the one the model was trained with, marked in the figure if the variant is sparse.

    Raises:
        SparseBalanceError: The budgets, the model, the tokenizer or the tasks are wrong.
    """
    if not top_k or min(top_k) < 1:
        raise SparseBalanceError(f"top_k = {list(top_k)}: give budgets in blocks, from 1 on.")
    budgets: list[int | None] = [*sorted(set(top_k)), None]
    results = [
        evaluate(
            at_budget(config, budget),
            model_dir=model_dir,
            tokenizer_dir=tokenizer_dir,
            task_dir=task_dir,
            out=out / (FULL if budget is None else f"top_k_{budget}"),
            prompt_style=prompt_style,
        )
        for budget in budgets
    ]
    summary = _summarize(config, budgets, results)
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


def _summarize(
    config: EvaluateStage, budgets: Sequence[int | None], results: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    block_size, full = config.attention.block_size, results[-1]
    return {
        "variant": config.variant,
        "block_size": block_size,
        "trained_top_k": config.attention.top_k if config.kind == "sparse" else None,
        "budgets": [
            {
                "top_k": top_k,
                "budget_tokens": None if top_k is None else top_k * block_size,
                "scores": result["scores"],
                "score_mean": result["score_mean"],
            }
            for top_k, result in zip(budgets, results, strict=True)
        ],
        **{key: full[key] for key in _SHARED},
    }
