"""Makes RULER's tasks at given lengths as one task folder."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sbcore.artifacts import digest_file
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.descriptions import TaskDescription
from sbcore.evaluate.loading import load_tokenizer
from sbcore.evaluate.niah.fitting import PromptFitter
from sbcore.evaluate.niah.folder import begin_folder, finish_folder, unheard, write_rows
from sbcore.evaluate.niah.haystack import describe_haystack
from sbcore.evaluate.ruler.tasks import TASKS, Maker, RulerTask, find_ruler_task, sized_name
from sbcore.evaluate.ruler.texts import Texts, open_texts

MADE = tuple(name for name, task in TASKS.items() if task.maker is not None)
"""The tasks that are made here, without data of others."""


def make_ruler(
    out: Path,
    *,
    tokenizer_dir: Path,
    tasks: Sequence[str],
    lengths: Sequence[int],
    num_examples: int,
    haystack: str,
    seed: int,
    on_row: Callable[[], object] = unheard,
) -> list[str]:
    """Writes a task folder to ``out``, returns the names of its tasks, ``TASK_LENGTH``.

    A length holds the prompt and the tokens to generate, by this tokenizer; a chat template comes
    on top. ``haystack`` is the text of those tasks that hide facts in prose, as `open_haystack`
    takes it. Equal arguments write equal bytes, and the first examples do not depend on how many
    there are. ``on_row`` is called after each.

    Raises:
        SparseBalanceError: An unknown task, one that cannot be made, or a length too small.
    """
    makers = {name: _maker(name) for name in dict.fromkeys(tasks)}
    _check(lengths, num_examples, makers)
    texts = open_texts(haystack)
    tokenizer = load_tokenizer(tokenizer_dir, needs_template=False)
    made_with = {
        "maker": "ruler",
        "haystack": describe_haystack(haystack),
        "num_examples": num_examples,
        "tokenizer_digest": digest_file(tokenizer_dir),
        "seed": seed,
    }
    begin_folder(out, made_with=made_with)
    descriptions = {}
    for length in lengths:
        for name, (task, make) in makers.items():
            sized, maker = sized_name(name, length), make(length)
            fitter = PromptFitter(
                tokenizer, maker.template, length, task.max_new_tokens, guess=length // 20
            )
            rows = _rows(maker, fitter, num_examples, place=sized, texts=texts, seed=seed)
            write_rows(out / f"{sized}.jsonl", rows, on_row=on_row)
            descriptions[sized] = describe(task, maker.template)
    finish_folder(out, descriptions)
    return list(descriptions)


def describe(task: RulerTask, template: str) -> TaskDescription:
    """Returns what ``tasks.json`` says of a task with this template."""
    return TaskDescription(
        metric=task.metric,
        max_new_tokens=task.max_new_tokens,
        template=template,
        category="ruler",
        chat=True,
    )


def _maker(name: str) -> tuple[RulerTask, Callable[[int], Maker]]:
    task = find_ruler_task(name)
    if task.maker is None:
        raise SparseBalanceError(
            f"ruler task = '{name}': needs a data set of others. import RULER's own files, "
            f"or take {', '.join(MADE)}."
        )
    return task, task.maker


def _check(lengths: Sequence[int], num_examples: int, tasks: Mapping[str, object]) -> None:
    if not lengths or len(set(lengths)) != len(lengths) or min(lengths) < 1:
        raise SparseBalanceError(f"lengths = {list(lengths)}: give different lengths, in tokens.")
    if num_examples < 1 or not tasks:
        raise SparseBalanceError(
            f"num_examples = {num_examples}, tasks = {list(tasks)}: give at least one of each."
        )


def _rows(
    maker: Maker,
    fitter: PromptFitter,
    num_examples: int,
    *,
    place: str,
    texts: Texts,
    seed: int,
) -> Iterator[dict[str, Any]]:
    for index in range(num_examples):
        build = partial(_row, maker, texts=texts, seed=f"{seed} {place} {index}")
        row = fitter.fit(build, smallest=maker.smallest, place=place)
        yield {"index": index, "all_classes": None, **row}


def _row(maker: Maker, num_units: int, *, texts: Texts, seed: str) -> dict[str, Any]:
    return maker.row(num_units, rng=random.Random(seed), texts=texts)
