"""The training records: questions about meetings, and made tasks of many lengths.

The made ones are RULER's, drawn with another seed than those that are evaluated; the fact of the
evaluated grid (`niah`) is worded otherwise and never trained on.
"""

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from smollm2_recipe import ANSWER_TOKENS, Recipe

from sbcore.evaluate.descriptions import read_descriptions
from sbcore.evaluate.loading import load_tokenizer
from sbcore.evaluate.prompts import fill_template, truncate_middle
from sbcore.evaluate.rows import ExampleRow, read_rows
from sbcore.evaluate.ruler.make import make_ruler

SEED = 1
"""Evaluation draws with 0."""


def write_records(recipe: Recipe, questions: Path, *, tokenizer: Path, out: Path) -> None:
    """Writes a jsonl file of prompts and responses."""
    with out.open("w", encoding="utf-8") as file:
        for record in (
            *_of_meetings(recipe, questions, tokenizer),
            *_made(recipe, tokenizer),
        ):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _of_meetings(recipe: Recipe, questions: Path, tokenizer: Path) -> Iterator[dict[str, str]]:
    """Yields questions drawn from all meetings; a long transcript loses its middle."""
    loaded = load_tokenizer(tokenizer, needs_template=True)
    room = recipe.max_tokens - ANSWER_TOKENS
    with gzip.open(questions, "rt", encoding="utf-8") as file:
        meetings = [json.loads(line) for line in file]
    cut: dict[str, str] = {}
    for meeting, query in _drawn(meetings, recipe.num_questions):
        name = meeting["id"]
        if name not in cut:
            cut[name], _ = truncate_middle(loaded, meeting["transcript"], max_prompt_tokens=room)
        prompt = f"Transcript of a meeting:\n\n{cut[name]}\n\nOn this meeting: {query['query']}"
        yield {"prompt": prompt, "response": query["answer"]}


def _drawn(meetings: list[dict[str, Any]], count: int) -> list[tuple[Any, Any]]:
    pairs = [(meeting, query) for meeting in meetings for query in meeting["queries"]]
    return random.Random(SEED).sample(pairs, count)


def _made(recipe: Recipe, tokenizer: Path) -> Iterator[dict[str, str]]:
    for length, count in zip(recipe.made_lengths, recipe.made_counts, strict=True):
        with TemporaryDirectory() as folder:
            names = make_ruler(
                Path(folder),
                tokenizer_dir=tokenizer,
                tasks=recipe.made_tasks,
                lengths=[length],
                num_examples=count,
                haystack="prose",
                seed=SEED,
            )
            described = read_descriptions(Path(folder))
            for name in names:
                path = Path(folder) / f"{name}.jsonl"
                for row in read_rows(path, ExampleRow):
                    prompt = fill_template(described[name].template, row, place=name)
                    yield {"prompt": prompt, "response": ", ".join(row.answers)}
