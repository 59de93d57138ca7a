"""Makes the grid of length and depth: one task per length, ``niah_LENGTH``, as a task folder.

Rows name their ``depth_percent`` and ``max_seq_length``; all depths come before a second example of
any.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbcore.artifacts import digest_file
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.descriptions import TaskDescription
from sbcore.evaluate.loading import load_tokenizer
from sbcore.evaluate.niah.fitting import PromptFitter
from sbcore.evaluate.niah.folder import begin_folder, finish_folder, unheard, write_rows
from sbcore.evaluate.niah.haystack import Haystack, describe_haystack, open_haystack
from sbcore.evaluate.niah.needle import Needle, draw_value, hide

_TEMPLATE = (
    "Read the text between the two lines. One of its sentences answers the question below.\n"
    "----\n{context}\n----\n{input}"
)


def make_niah(
    out: Path,
    *,
    tokenizer_dir: Path,
    lengths: Sequence[int],
    depths_percent: Sequence[float],
    haystack: str,
    needle: Needle,
    num_examples: int,
    max_new_tokens: int,
    seed: int,
    on_row: Callable[[], object] = unheard,
) -> list[str]:
    """Writes a task folder to ``out`` and returns the names of its tasks.

    ``num_examples`` are those of one cell of the grid. ``haystack`` is as `open_haystack` takes
    it; where it starts differs from example to example. Equal arguments write equal bytes.
    ``on_row`` is called after each example.

    Raises:
        SparseBalanceError: A length is too small, a depth is none, or an input cannot be read.
    """
    _check(lengths, depths_percent, num_examples)
    text = open_haystack(haystack)
    tokenizer = load_tokenizer(tokenizer_dir, needs_template=False)
    names = [f"niah_{length}" for length in lengths]
    made_with = {
        "maker": "niah",
        "depths_percent": list(depths_percent),
        "haystack": describe_haystack(haystack),
        "needle": [needle.sentence, needle.question, needle.answer],
        "num_examples": num_examples,
        "tokenizer_digest": digest_file(tokenizer_dir),
        "seed": seed,
    }
    begin_folder(out, made_with=made_with)
    cells = [depth for _ in range(num_examples) for depth in depths_percent]
    for name, length in zip(names, lengths, strict=True):
        fitter = PromptFitter(tokenizer, _TEMPLATE, length, max_new_tokens, guess=length // 20)
        examples = _examples(cells, text, needle, seed=f"{seed} {name}")
        rows = (fitter.fit(each.row, smallest=1, place=name) for each in examples)
        write_rows(out / f"{name}.jsonl", rows, on_row=on_row)
    finish_folder(out, dict.fromkeys(names, _description(max_new_tokens)))
    return names


@dataclass(frozen=True, slots=True)
class _Example:
    index: int
    haystack: Haystack
    first: int
    needle: Needle
    depth_percent: float

    def row(self, num_units: int) -> dict[str, Any]:
        return {
            "index": self.index,
            "input": f"{self.needle.question}\nAnswer:",
            "context": hide(
                self.needle.sentence,
                self.haystack,
                num_units,
                first=self.first,
                depth_percent=self.depth_percent,
            ),
            "answers": [self.needle.answer],
            "all_classes": None,
            "depth_percent": self.depth_percent,
        }


def _examples(
    cells: Sequence[float], haystack: Haystack, needle: Needle, *, seed: str
) -> Iterator[_Example]:
    for index, depth_percent in enumerate(cells):
        rng = random.Random(f"{seed} {index}")
        hidden = needle.with_value(draw_value(rng))
        yield _Example(index, haystack, rng.randrange(len(haystack.units)), hidden, depth_percent)


def _description(max_new_tokens: int) -> TaskDescription:
    return TaskDescription(
        metric="match_all",
        max_new_tokens=max_new_tokens,
        template=_TEMPLATE,
        category="niah",
        chat=True,
    )


def _check(lengths: Sequence[int], depths_percent: Sequence[float], num_examples: int) -> None:
    for key, values in (("lengths", lengths), ("depths_percent", depths_percent)):
        if not values or len(set(values)) != len(values):
            raise SparseBalanceError(
                f"{key} = {list(values)}: give different values, at least one."
            )
    outside = [depth for depth in depths_percent if not 0 <= depth <= 100]
    if outside or num_examples < 1 or min(lengths) < 1:
        raise SparseBalanceError(
            f"depths_percent = {list(depths_percent)}, lengths = {list(lengths)}, num_examples = "
            f"{num_examples}: depths lie in 0..100, the others are at least 1. correct the value."
        )
