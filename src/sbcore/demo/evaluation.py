"""The demo's evaluation tasks in LongBench's row form: one question at the end of each text.

``tasks.json`` beside the rows says how each task is asked and scored.
"""

import json
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np

from sbcore.artifacts import write_json
from sbcore.config.data import DemoConfig
from sbcore.demo.folders import replace_folder_when_done
from sbcore.demo.script import Script
from sbcore.demo.tasks import TASKS, DemoTask
from sbcore.demo.text import Text, join
from sbcore.demo.words import FURTHER, VALUES


def write_tasks(config: DemoConfig, *, seed: int, text: Text, out: Path) -> dict[str, float]:
    """Writes TASK.jsonl and tasks.json to out; returns what guessing scores, percent, by task."""
    descriptions = {}
    with replace_folder_when_done(out) as folder:
        for number, (name, task) in enumerate(TASKS.items(), start=1):
            rng = np.random.default_rng([seed, number])
            rows = [
                _row(name, length, task.make(length, 1, text, rng), number=i)
                for i, length in enumerate(_lengths(config))
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
            descriptions[name] = _description(task, rows)
        write_json(folder / "tasks.json", descriptions)
    return {name: description["chance"] for name, description in descriptions.items()}


def _lengths(config: DemoConfig) -> list[int]:
    """Returns the examples' lengths with question and answer: equal ones side by side."""
    groups = np.array_split(np.arange(config.num_eval_samples), len(config.eval_lengths))
    return [
        length for length, group in zip(config.eval_lengths, groups, strict=True) for _ in group
    ]


def _row(name: str, length: int, script: Script, *, number: int) -> dict[str, Any]:
    """Returns LongBench's fields; ``length`` is in tokens."""
    *context, answer = [pieces for _, pieces in script.turns]
    asked = [context[0].pop()] if name != "next_line" else []
    values = [piece.text for piece in answer if piece.text not in FURTHER]
    return {
        "input": join(asked),
        "context": "".join(join(pieces) for pieces in context),
        "answers": values,
        "length": length,
        "dataset": name,
        "language": "code" if name == "next_line" else "en",
        "all_classes": list(VALUES) if name == "few_shot" else None,
        "_id": f"{name}-{number}",
    }


def _description(task: DemoTask, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "metric": task.metric,
        "max_new_tokens": task.max_new_tokens,
        "template": "{context}{input}",
        "chance": _chance_of_lines(rows) if task.chance is None else task.chance,
        "category": task.category,
        "language": rows[0]["language"],
    }


def _chance_of_lines(rows: list[dict[str, Any]]) -> float:
    """Returns the mean likeness of an answer to the next row's, percent."""
    lines = [row["answers"][0] for row in rows]
    pairs = zip(lines, lines[1:] + lines[:1], strict=True)
    return round(100 * float(np.mean([SequenceMatcher(None, a, b).ratio() for a, b in pairs])), 2)
