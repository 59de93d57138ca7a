"""The table of RULER's 13 tasks, under the names of lm-evaluation-harness.

Tasks in a folder are named ``TASK_LENGTH`` (``niah_single_1_4096``), since a task has one score;
`sbcore.evaluate.ruler.averages` puts the lengths of a task together again.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sbcore.errors import SparseBalanceError, unknown_name
from sbcore.evaluate.ruler.counting import CommonWords, FrequentWords
from sbcore.evaluate.ruler.retrieval import HaystackKind, KeyKind, Retrieval, ValueKind
from sbcore.evaluate.ruler.texts import Texts
from sbcore.evaluate.ruler.tracing import Tracing


class Maker(Protocol):
    """Makes the examples of one task at one length."""

    @property
    def template(self) -> str:
        """The prompt around an example's fields."""

    @property
    def smallest(self) -> int:
        """Fewest units of haystack."""

    def row(self, num_units: int, *, rng: random.Random, texts: Texts) -> dict[str, Any]:
        """Returns an example's fields; the same units and random state make the same example."""


@dataclass(frozen=True, slots=True)
class RulerTask:
    """One task: its name in RULER's own files, how it is scored, and what makes it.

    ``maker`` takes max_seq_length; None where the examples come from data sets of others.
    """

    official_name: str
    metric: Literal["match_all", "match_part"]
    max_new_tokens: int
    maker: Callable[[int], Maker] | None


# name, haystack, keys, values, number of keys, of values for each, of keys asked for
_RETRIEVAL: tuple[tuple[str, HaystackKind, KeyKind, ValueKind, int, int, int], ...] = (
    ("niah_single_1", "noise", "words", "number", 1, 1, 1),
    ("niah_single_2", "prose", "words", "number", 1, 1, 1),
    ("niah_single_3", "prose", "words", "code", 1, 1, 1),
    ("niah_multikey_1", "prose", "words", "number", 4, 1, 1),
    ("niah_multikey_2", "facts", "words", "number", 1, 1, 1),
    ("niah_multikey_3", "facts", "code", "code", 1, 1, 1),
    ("niah_multivalue", "prose", "words", "number", 1, 4, 1),
    ("niah_multiquery", "prose", "words", "number", 4, 1, 4),
)


def _retrieval_task(name: str, maker: Retrieval) -> RulerTask:
    return RulerTask(name, "match_all", 128, lambda _: maker)


TASKS = {
    name: _retrieval_task(
        name,
        Retrieval(
            haystack=haystack,
            key_kind=key_kind,
            value_kind=value_kind,
            num_keys=num_keys,
            num_values=num_values,
            num_queries=num_queries,
        ),
    )
    for name, haystack, key_kind, value_kind, num_keys, num_values, num_queries in _RETRIEVAL
} | {
    "ruler_vt": RulerTask("vt", "match_all", 30, lambda _: Tracing(num_hops=4)),
    "ruler_cwe": RulerTask(
        "cwe", "match_all", 120, lambda length: CommonWords(num_common=10, max_seq_length=length)
    ),
    "ruler_fwe": RulerTask(
        "fwe", "match_all", 50, lambda length: FrequentWords(num_asked=3, max_seq_length=length)
    ),
    "ruler_qa_squad": RulerTask("qa_1", "match_part", 32, None),
    "ruler_qa_hotpot": RulerTask("qa_2", "match_part", 32, None),
}


def find_ruler_task(name: str) -> RulerTask:
    """Returns the task of this name.

    Raises:
        SparseBalanceError: No such task; near names are offered.
    """
    if name not in TASKS:
        raise SparseBalanceError(unknown_name("ruler task", name, TASKS))
    return TASKS[name]


def sized_name(name: str, length: int) -> str:
    """Returns the name of a task at one length."""
    return f"{name}_{length}"


def split_name(sized: str) -> tuple[str, int] | None:
    """Returns task and length of such a name, None if it is no RULER task's."""
    name, _, length = sized.rpartition("_")
    return (name, int(length)) if name in TASKS and length.isdecimal() else None
