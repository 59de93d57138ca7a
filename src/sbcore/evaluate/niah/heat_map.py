"""The grid's result: mean score per length and depth, as json and as a heat map."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbcore.artifacts import replace_when_done, write_json
from sbcore.evaluate.metrics import find_metric
from sbcore.evaluate.pairs import read_pairs, refuse_truncated
from sbcore.evaluate.rows import ExampleRow
from sbcore.evaluate.scoring import percent
from sbcore.evaluate.task_folder import LoadedTask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_WRITTEN_CELLS = 150  # more do not hold their numbers


class NiahRow(ExampleRow):
    """An example that knows its place in the grid."""

    depth_percent: float
    max_seq_length: int


@dataclass(frozen=True, slots=True)
class Grid:
    """Scores in percent, ``scores[depth][length]``; None where no example was answered."""

    lengths: list[int]
    depths_percent: list[float]
    scores: list[list[float | None]]
    num_examples: list[list[int]]


def score_niah(tasks: Sequence[LoadedTask], *, prediction_dir: Path, out: Path) -> dict[str, Any]:
    """Writes ``niah.json`` and ``niah.png`` to ``out``, returns the content of the former.

    ``tasks`` are those of `make_niah`, one per length, ``prediction_dir`` what evaluation wrote; a
    task whose predictions stop early is scored as far as they go.

    Raises:
        SparseBalanceError: A file is missing or wrong, predictions belong to other examples, or
            their prompts were truncated.
    """
    refuse_truncated(prediction_dir, tasks)
    grid = _grid(_example_scores(tasks, prediction_dir))
    summary = {
        "lengths": grid.lengths,
        "depths_percent": grid.depths_percent,
        "scores": grid.scores,
        "num_examples": grid.num_examples,
        "score_mean": _mean([score for line in grid.scores for score in line]),
        "score_by_length": [_mean(column) for column in zip(*grid.scores, strict=True)],
    }
    figure = heat_map(grid)
    with replace_when_done(out / "niah.png") as part:
        figure.savefig(part, format="png", dpi=200, metadata={"Software": None})
    write_json(out / "niah.json", summary)
    return summary


def heat_map(grid: Grid) -> "Figure":
    """Returns the figure: depth downwards, length to the right, dark is wrong, bright is right."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9, "figure.constrained_layout.use": True}):
        cells = [[math.nan if score is None else score for score in line] for line in grid.scores]
        width, height = (0.5, 0.3) if _is_written(grid) else (0.25, 0.18)  # inches for a cell
        size = (max(4.0, width * len(grid.lengths) + 2), max(2.5, height * len(cells) + 1))
        figure = Figure(figsize=size)
        axes = figure.add_subplot()
        image = axes.imshow(cells, vmin=0, vmax=100, cmap="cividis", aspect="auto")
        _label(axes, grid)
        figure.colorbar(image, label="answers found, %")
    return figure


def _label(axes: "Axes", grid: Grid) -> None:
    columns, lines = range(len(grid.lengths)), range(len(grid.depths_percent))
    axes.set_xticks(columns, [f"{length:,}" for length in grid.lengths], rotation=45, ha="right")
    axes.set_yticks(lines, [f"{depth:g}" for depth in grid.depths_percent])
    axes.set_xlabel("length, tokens")
    axes.set_ylabel("depth of the fact, %")
    if not _is_written(grid):
        return
    for line in lines:
        for column in columns:
            score = grid.scores[line][column]
            if score is not None:
                colour = "black" if score > 50 else "white"
                axes.text(column, line, f"{score:.0f}", ha="center", va="center", color=colour)


def _is_written(grid: Grid) -> bool:
    return len(grid.lengths) * len(grid.depths_percent) <= _MOST_WRITTEN_CELLS


def _example_scores(
    tasks: Sequence[LoadedTask], prediction_dir: Path
) -> dict[tuple[float, int], list[float]]:
    cells: dict[tuple[float, int], list[float]] = {}
    for loaded in tasks:
        metric = find_metric(loaded.task.metric, place=str(loaded.path))
        for example, predicted in read_pairs(loaded, NiahRow, prediction_dir=prediction_dir):
            cell = cells.setdefault((example.depth_percent, example.max_seq_length), [])
            if predicted is not None:
                cell.append(metric(predicted.pred, predicted.answers, ()))
    return cells


def _grid(cells: dict[tuple[float, int], list[float]]) -> Grid:
    depths = sorted({depth for depth, _ in cells})
    lengths = sorted({length for _, length in cells})
    found = [[cells.get((depth, length), []) for length in lengths] for depth in depths]
    scores = [[percent(cell) if cell else None for cell in line] for line in found]
    return Grid(lengths, depths, scores, [[len(cell) for cell in line] for line in found])


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return round(sum(known) / len(known), 2) if known else None
