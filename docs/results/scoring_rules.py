"""Writes scoring_rules.csv: what the same predictions score under rules that other scorers follow.

``PYTHONPATH=src python docs/results/scoring_rules.py PREDICTIONS`` with a folder as
``sb evaluate --score-only`` takes it. official: LongBench's own scripts; first_answer: of several
answers only the first counts; all_lines: few-shot answers are not cut to their first line;
nonblank_code: blank lines of code are passed over; indel: the code ratio that python-Levenshtein
gives. As lm-evaluation-harness did before its pulls 2983 and 3273, or still does (nonblank_code).
"""

import csv
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sbcore.artifacts import replace_when_done
from sbcore.evaluate.longbench import STANDARD
from sbcore.evaluate.rows import PredictionRow, find_rows_file, read_rows
from sbcore.evaluate.scoring import score_rows
from sbcore.evaluate.tasks import Task

Rule = Callable[[Task, PredictionRow], tuple[Task, PredictionRow]]

OUT = Path(__file__).with_name("scoring_rules.csv")


def first_answer(task: Task, row: PredictionRow) -> tuple[Task, PredictionRow]:
    """Keeps the first of several answers."""
    return task, row.model_copy(update={"answers": row.answers[:1]})


def all_lines(task: Task, row: PredictionRow) -> tuple[Task, PredictionRow]:
    """Scores the whole prediction."""
    return replace(task, first_line=False), row


def nonblank_code(task: Task, row: PredictionRow) -> tuple[Task, PredictionRow]:
    """Passes over blank lines where the first line of code is sought."""
    if task.metric != "code_sim":
        return task, row
    lines = [line for line in row.pred.split("\n") if line.strip()]
    return task, row.model_copy(update={"pred": "\n".join(lines)})


def indel(task: Task, row: PredictionRow) -> tuple[Task, PredictionRow]:
    """Takes the InDel ratio for code."""
    return (replace(task, metric="code_sim_indel") if task.metric == "code_sim" else task), row


RULES: dict[str, Rule] = {
    "official": lambda task, row: (task, row),
    "first_answer": first_answer,
    "all_lines": all_lines,
    "nonblank_code": nonblank_code,
    "indel": indel,
}


def main() -> None:
    """Writes a row per task with predictions."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = Path(sys.argv[1])
    files = {task: find_rows_file(folder, task.name) for task in STANDARD}
    with replace_when_done(OUT) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["task", *RULES])
        for task, path in files.items():
            if path is not None:
                rows = read_rows(path, PredictionRow)
                table.writerow([task.name, *(score(task, rows, path, rule) for rule in RULES)])


def score(task: Task, rows: list[PredictionRow], path: Path, rule: str) -> float:
    """Returns the task's score under a rule, percent."""
    changed = [RULES[rule](task, row) for row in rows]
    return score_rows(changed[0][0], [row for _, row in changed], path).score


if __name__ == "__main__":
    main()
