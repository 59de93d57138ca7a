"""The two aggregation tasks: the most common words of a list, the most frequent coded words."""

import random
import string
from dataclasses import dataclass
from math import ceil
from typing import Any

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.niah.words import ADJECTIVES, NOUNS, NUM_PAIRS, pair
from sbcore.evaluate.ruler.texts import Texts

_SHORT_LENGTH = 4096  # below it, ten words 30 times over leave no room for the others


@dataclass(frozen=True, slots=True)
class _Repeats:
    common: int
    others: int
    example_words: int
    example_common: int
    example_others: int


_USUAL = _Repeats(30, 3, 40, 10, 3)
_SHORT = _Repeats(6, 1, 20, 3, 1)


@dataclass(frozen=True, slots=True)
class CommonWords:
    """A numbered list in which ``num_common`` words occur more often than all others.

    They occur 30 times and the others 3 times (6 and 1 below 4,096 tokens); a solved list of 40
    words, 10 and 3 times (20 words, 3 and 1 times), comes first. Lists of more words than
    `sbcore.evaluate.niah.words` holds are made of its adjective-noun pairs.
    """

    num_common: int
    max_seq_length: int

    template = (
        "Each numbered list below repeats its words, a few of them more often than the others. "
        "Find the words repeated most often.\n\n{example}\n\n{context}\n\n{input}"
    )

    @property
    def smallest(self) -> int:
        """Fewest different words: one that is not common."""
        return self.num_common + 1

    def row(self, num_units: int, *, rng: random.Random, texts: Texts) -> dict[str, Any]:
        """Returns an example of ``num_units`` different words; ``texts`` are not used."""
        repeats = _SHORT if self.max_seq_length < _SHORT_LENGTH else _USUAL
        shown = _words(repeats.example_words, rng)
        words = _words(num_units, rng)
        example = self._list(
            shown, common=repeats.example_common, others=repeats.example_others, rng=rng
        )
        answer = _numbered(shown[: self.num_common])
        return {
            "input": self._question,
            "context": self._list(words, common=repeats.common, others=repeats.others, rng=rng),
            "answers": words[: self.num_common],
            "example": f"{example}\n\n{self._question} {answer}",
        }

    @property
    def _question(self) -> str:
        return (
            f"Which {self.num_common} words are repeated most often in this list?\n"
            f"Answer: The {self.num_common} words repeated most often are:"
        )

    def _list(self, words: list[str], *, common: int, others: int, rng: random.Random) -> str:
        entries = words[: self.num_common] * common + words[self.num_common :] * others
        rng.shuffle(entries)
        return _numbered(entries)


@dataclass(frozen=True, slots=True)
class FrequentWords:
    """Made-up words of six letters whose frequencies fall as rank to the power of -2.

    The vocabulary grows with the length, one word for 50 tokens. The most frequent mark is "...",
    which stands for nothing; the ``num_asked`` words after it are asked for.
    """

    num_asked: int
    max_seq_length: int

    template = (
        "The coded text below repeats its words, some of them far more often than others. The dots "
        "are gaps, not words.\n\n{context}\n\n{input}"
    )

    @property
    def smallest(self) -> int:
        """Fewest words of text that keep the last word asked for ahead of the next."""
        shares = self._shares
        return ceil(1 / (shares[self.num_asked] - shares[self.num_asked + 1]))

    def row(self, num_units: int, *, rng: random.Random, texts: Texts) -> dict[str, Any]:
        """Returns an example of about ``num_units`` words; ``texts`` are not used."""
        vocabulary = ["...", *_coded_words(self._num_words, rng)]
        entries = [
            word
            for word, share in zip(vocabulary, self._shares, strict=True)
            for _ in range(int(num_units * share))
        ]
        rng.shuffle(entries)
        return {
            "input": (
                f"Which {self.num_asked} words occur most often in the coded text?\n"
                f"Answer: The {self.num_asked} words that occur most often are:"
            ),
            "context": " ".join(entries),
            "answers": vocabulary[1 : self.num_asked + 1],
        }

    @property
    def _num_words(self) -> int:
        return max(self.max_seq_length // 50, self.num_asked + 1)

    @property
    def _shares(self) -> list[float]:
        weights = [rank**-2.0 for rank in range(1, self._num_words + 2)]
        return [weight / sum(weights) for weight in weights]


def _words(count: int, rng: random.Random) -> list[str]:
    single = ADJECTIVES + NOUNS
    if count <= len(single):
        return _first_of_shuffled(single, count, rng)
    if count > NUM_PAIRS:
        raise SparseBalanceError(
            f"ruler_cwe: {count} different words: only {NUM_PAIRS} there. ask for a smaller length."
        )
    return [pair(index) for index in rng.sample(range(NUM_PAIRS), count)]


def _first_of_shuffled(words: tuple[str, ...], count: int, rng: random.Random) -> list[str]:
    return rng.sample(words, len(words))[:count]


def _numbered(words: list[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, start=1))


def _coded_words(count: int, rng: random.Random) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(rng.choices(string.ascii_lowercase, k=6))] = None
    return list(found)
