"""Writes the generated tables of quality.md from the csv files beside this script.

Run it after ``smollm2.py read`` and ``quality.py read``: ``python docs/results/quality_tables.py``
with docs/results as the place to import from. A table's place begins with a comment of its name.
"""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from quality_recipe import VARIANTS
from quality_summary import TUNED, summary_lines
from smollm2_recipe import BEFORE

HERE = Path(__file__).parent
PAGE = HERE / "quality.md"
BASELINE, EVERYTHING = "baseline", "all"
_END = "<!-- end -->"
_RUN = ("variant", "seed", "loss_first", "loss_final", "loss_mean", "coverage_delta")

Row = dict[str, str]


def main() -> None:
    """Writes every table whose place is on the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(fill_places(page, TABLES), encoding="utf-8")


def fill_places(page: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """Returns the page with each table between its name and the next end."""
    for name, make in tables.items():
        begin = f"<!-- generated: {name} -->"
        if begin in page:
            place = re.compile(f"{re.escape(begin)}.*?{re.escape(_END)}", re.DOTALL)
            head, tail = place.split(page, maxsplit=1)
            page = f"{head}{begin}\n{make()}{_END}{tail}"
    return page


def smollm2_scores() -> str:
    """Returns families of tasks, and each made task."""
    rows = _read("smollm2.csv")
    shown = [row for row in rows if row["task"] == EVERYTHING or row["family"] in ("niah", "ruler")]
    return score_table(
        shown,
        (*BEFORE, *VARIANTS),
        lambda row: row["family"] if row["task"] == EVERYTHING else row["task"],
    )


def smollm2_seeds() -> str:
    """Returns the least and the largest difference of a seed, of families and made tasks."""
    rows = [row for row in _read("smollm2.csv") if int(row["num_seeds"]) > 1]
    shown = [row for row in rows if row["task"] == EVERYTHING or row["family"] in ("niah", "ruler")]
    return seed_table(
        shown, lambda row: row["family"] if row["task"] == EVERYTHING else row["task"]
    )


def smollm2_runs() -> str:
    """Returns losses and seconds of the trainings and evaluations."""
    return _runs("smollm2-runs.csv", (*_RUN, "longbench_s", "made_s"))


def small_model_runs() -> str:
    """Returns losses and coverage_delta of the trainings from scratch."""
    return _runs("quality-30m-runs.csv", (*_RUN, "coverage_delta_min", "coverage_delta_max"))


def small_model_scores() -> str:
    """Returns the tasks of the model from scratch, over all lengths."""
    rows = [row for row in _read("quality-30m.csv") if row["length"] == EVERYTHING]
    return score_table(rows, VARIANTS, lambda row: row["task"])


def small_model_lengths() -> str:
    """Returns the means over all tasks, and over those of retrieval, at each length."""
    rows = [row for row in _read("quality-30m.csv") if row["task"] in ("retrieval", EVERYTHING)]
    return score_table(rows, VARIANTS, lambda row: f"{row['task']}, {row['length']}")


def small_model_seeds() -> str:
    """Returns the least and the largest difference of a seed's training, by task."""
    rows = [
        row
        for row in _read("quality-30m.csv")
        if row["length"] == EVERYTHING or row["task"] in ("retrieval", EVERYTHING)
    ]
    return seed_table(rows, lambda row: f"{row['task']}, {row['length']}")


def summary() -> str:
    """Returns the tuned variants against the baseline on every family."""
    return _markdown(summary_lines(_read("smollm2.csv"), _read("quality-30m.csv")))


TABLES = {
    "summary": summary,
    "smollm2 scores": smollm2_scores,
    "smollm2 seeds": smollm2_seeds,
    "smollm2 runs": smollm2_runs,
    "30m scores": small_model_scores,
    "30m lengths": small_model_lengths,
    "30m seeds": small_model_seeds,
    "30m runs": small_model_runs,
}


def seed_table(rows: Sequence[Row], label: Callable[[Row], str]) -> str:
    """Returns the baseline's scores and tuned variants' differences: least and largest seed."""
    cells = {(label(row), row["variant"]): row for row in rows}
    body = [
        [text, _scores(row), *(_range(cells[text, name]) for name in TUNED)]
        for (text, variant), row in cells.items()
        if variant == BASELINE
    ]
    return _markdown([["task", BASELINE, *TUNED], *body])


def score_table(rows: Sequence[Row], names: Sequence[str], label: Callable[[Row], str]) -> str:
    """Returns a markdown table: a row per label, a column per variant, differences behind scores.

    Those that are distinguishable from the baseline are bold.
    """
    cells = {(label(row), row["variant"]): row for row in rows}
    labels = dict.fromkeys(label(row) for row in rows)
    body = [
        [
            text,
            cells[text, BASELINE]["num_examples"],
            *(_cell(cells[text, name], name) for name in names),
        ]
        for text in labels
    ]
    return _markdown([["task", "examples", *names], *body])


def _cell(row: Row, name: str) -> str:
    score = f"{float(row['score']):.1f}"
    if name == BASELINE:
        return score
    difference, low, high = (float(row[key]) for key in ("difference", "low", "high"))
    text = f"{score} ({difference:+.1f}, {low:+.1f} to {high:+.1f})"
    return f"**{text}**" if row["distinguishable"] == "True" else text


def _scores(row: Row) -> str:
    return f"{float(row['score_min']):.1f} to {float(row['score_max']):.1f}"


def _range(row: Row) -> str:
    return f"{float(row['difference_min']):+.1f} to {float(row['difference_max']):+.1f}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(lines[0])
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))


def _runs(name: str, columns: Sequence[str]) -> str:
    return _markdown([columns, *([run[column] for column in columns] for run in _read(name))])


def _read(name: str) -> list[Row]:
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
