"""Evidence that speed did not cost quality: prepares it, and reads what came back.

    PYTHONPATH=src:kernels python docs/results/quality.py prepare FOLDER [--small]
    PYTHONPATH=src:kernels python docs/results/quality.py read OUT docs/results/quality-30m.csv

``prepare`` makes data, tokenizer and tasks on a CPU (some minutes, 31 MiB);
`quality_train.py` trains and evaluates on a GPU; ``read`` writes one row per variant, task and
length: the mean over seeds, its least and largest, and the paired difference to the baseline (95 %,
bootstrap over examples, each with its mean over seeds); beside it losses and times of runs.
"""

import gzip
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quality_recipe import VARIANTS, Recipe, small
from quality_rows import ROW_COLUMNS, Scores, compared
from quality_runs import write_rows, write_runs
from rich.progress import Progress

from sbcore.artifacts import read_json
from sbcore.config.stages import DemoStage, PrepareStage
from sbcore.data.prepare import prepare as prepare_data
from sbcore.demo.dataset import make_demo

BASELINE = "baseline"
COLUMNS = ("variant", "task", "length", *ROW_COLUMNS, "chance")
EVERYTHING = "all"
GROUPS = {"retrieval": ("recall", "multi_value", "needle")}
"""Means over some tasks, beside that over all."""


def main() -> None:
    """Does what the first word says."""
    match sys.argv[1:]:
        case ["prepare", folder]:
            prepare(Recipe(), Path(folder))
        case ["prepare", folder, "--small"]:
            prepare(small(), Path(folder))
        case ["read", out, table]:
            write_table(Path(out), Path(table))
        case _:
            raise SystemExit(__doc__)


def prepare(recipe: Recipe, folder: Path) -> None:
    """Writes what every seed has in common; the seed of data and tasks is 0."""
    config = recipe.config(seed=0)
    demo = DemoStage(seed=0, demo=config.demo)
    with Progress() as progress:
        make_demo(demo, out=folder / "demo", progress=progress)
        train = folder / "demo" / "train.jsonl"
        prepare_data(
            PrepareStage(data=config.data),
            files=[train],
            tokenizer=folder / "demo" / "tokenizer",
            out=folder / "data",
            progress=progress,
        )
    train.unlink()  # the tokens are what is read
    for rows in sorted((folder / "demo" / "tasks").glob("*.jsonl")):
        (rows.parent / f"{rows.name}.gz").write_bytes(gzip.compress(rows.read_bytes(), mtime=0))
        rows.unlink()
    recipe.write(folder)


def write_table(out: Path, table: Path) -> None:
    """Writes the scores, and beside them ``-runs.csv``; each whole or not at all."""
    found = {name: read_scores(out, name) for name in VARIANTS}
    rows = [
        row
        for name in VARIANTS
        for row in table_rows(name, found[name], found[BASELINE], chances(out))
    ]
    write_rows(table, COLUMNS, rows)
    write_runs(out, table)


def read_scores(out: Path, variant: str) -> Scores:
    """Returns a variant's example scores of all finished seeds."""
    scores: Scores = {}
    for path in sorted(out.glob(f"seed*/{variant}/result.json")):
        seed = int(path.parts[-3].removeprefix("seed"))
        for task, values in read_json(path)["example_scores"].items():
            lines = (path.parent / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
            for line, value in zip(lines, values, strict=True):
                cell = scores.setdefault((task, str(json.loads(line)["length"])), {})
                cell.setdefault(seed, []).append(value)
    if not scores:
        raise SystemExit(f"{out}: no seed*/{variant}/result.json. run quality_train.py first")
    return scores


def chances(out: Path) -> Mapping[str, float]:
    """Returns what guessing scores, percent, by task."""
    return dict(read_json(next(iter(sorted(out.glob("seed*/*/result.json")))))["chance"])


def table_rows(
    variant: str, scores: Scores, baseline: Scores, chance: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Yields a row per task, group of tasks and everything, at each length and over all."""
    groups: dict[str, tuple[str, ...]] = {task: (task,) for task, _ in scores}
    groups |= GROUPS | {EVERYTHING: tuple(groups)}
    lengths = sorted({length for _, length in scores}, key=int)
    for name, tasks in groups.items():
        for length in (*lengths, EVERYTHING):
            cells = [
                cell for cell in scores if cell[0] in tasks and length in (cell[1], EVERYTHING)
            ]
            place = {"variant": variant, "task": name, "length": length}
            yield place | compared(scores, baseline, cells) | {"chance": chance.get(name)}


if __name__ == "__main__":
    main()
