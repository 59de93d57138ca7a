"""The text that facts are hidden in: a file or folder of the user's, or one made here.

``noise`` repeats one line of filler; ``prose`` is 20,000 made sentences, about 13 tokens each, for
machines without a text at hand. Both repeat when a length needs more than they hold.
"""

import random
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sbcore.artifacts import digest_file
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.niah.words import ADJECTIVES, NOUNS
from sbcore.evaluate.rows import SUFFIXES, read_rows

BUILT_IN = ("noise", "prose")

_NOISE = "The rain falls on the roof. A cart rolls by. Bread is on the table. The clock ticks on."
_VERBS = (
    *("admired", "bought", "carried", "cleaned", "copied", "counted", "covered", "followed"),
    *("found", "guarded", "lifted", "lost", "mended", "moved", "noticed", "opened", "painted"),
    *("polished", "praised", "pushed", "repaired", "sold", "sorted", "visited", "weighed"),
)
_PLACES = ("near", "behind", "beside", "beyond", "beneath", "above", "before", "across from")
_NUM_SENTENCES = 20_000
_LONGEST_UNIT = 400  # characters; longer ones would make sizes coarse
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\s*\n\s*\n\s*")  # noqa: RUF001


class TextRow(BaseModel):
    """One text of a jsonl haystack; other fields are passed over."""

    model_config = ConfigDict(frozen=True, strict=True)

    text: str


@dataclass(frozen=True, slots=True)
class Haystack:
    """Sentences in order, and what stands between them; a fact goes between two of them."""

    units: tuple[str, ...]
    separator: str

    def draw(self, num_units: int, *, first: int) -> list[str]:
        """Returns consecutive units from ``first`` on; after the last comes the first again."""
        return [self.units[(first + i) % len(self.units)] for i in range(num_units)]


def open_haystack(source: str) -> Haystack:
    """Returns ``noise``, ``prose``, or the texts of a file or folder (.txt, .md, .jsonl[.gz]).

    Raises:
        SparseBalanceError: No such file or folder, no text in it, or a file that cannot be read.
    """
    if source == "noise":
        return Haystack((_NOISE,), "\n")
    if source == "prose":
        return Haystack(tuple(_made_sentences()), " ")
    units = tuple(unit for text in _texts(Path(source)) for unit in _sentences(text))
    if not units:
        raise SparseBalanceError(f"haystack = {source}: no text in it. give a file with sentences.")
    return Haystack(units, " ")


def describe_haystack(source: str) -> dict[str, str | None]:
    """Returns a haystack's name and the digest of its files, None for those made here."""
    return {
        "source": source,
        "digest": None if source in BUILT_IN else digest_file(Path(source)),
    }


def _made_sentences() -> Iterator[str]:
    rng = random.Random("haystack of prose")
    for _ in range(_NUM_SENTENCES):
        who, what, where = rng.sample(NOUNS, 3)
        first, second = rng.sample(ADJECTIVES, 2)
        place, verb = rng.choice(_PLACES), rng.choice(_VERBS)
        article = "an" if second[0] in "aeiou" else "a"
        yield f"The {who} {place} the {first} {where} {verb} {article} {second} {what}."


def _texts(path: Path) -> Iterable[str]:
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if _is_text(file)]
        return (text for file in files for text in _texts(file))
    if path.name.endswith(SUFFIXES):
        return [row.text for row in read_rows(path, TextRow)]
    try:
        return [path.read_text(encoding="utf-8")]
    except (OSError, UnicodeDecodeError) as error:
        raise SparseBalanceError(
            f"haystack = {path}: cannot be read: {error}. "
            "give a UTF-8 text, jsonl rows with a text, a folder of them, or "
            f"{' or '.join(BUILT_IN)}."
        ) from error


def _is_text(file: Path) -> bool:
    return file.is_file() and file.name.endswith((".txt", ".md", *SUFFIXES))


def _sentences(text: str) -> Iterator[str]:
    for sentence in _SENTENCE_END.split(text):
        unit = " ".join(sentence.split())
        if len(unit) > _LONGEST_UNIT:
            yield from textwrap.wrap(unit, _LONGEST_UNIT)
        elif unit:
            yield unit
