"""The eight retrieval tasks: values registered for keys, hidden in a text or among others.

A fact reads "The number registered for quick-lantern is 1234567."; a kind is "number" (keys of
two words, values of seven digits) or "code" (version-4 uuids).
"""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sbcore.evaluate.niah.words import NUM_PAIRS, pair
from sbcore.evaluate.ruler.texts import Texts

NUM_DEPTHS = 40
"""In prose, facts stand at depths drawn from this many even ones, both ends among them."""

HaystackKind = Literal["noise", "prose", "facts"]
KeyKind = Literal["words", "code"]
ValueKind = Literal["number", "code"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Facts of ``num_keys`` keys with ``num_values`` each; ``num_queries`` keys are asked for.

    In a haystack of facts every other line is a fact of another key.
    """

    haystack: HaystackKind
    key_kind: KeyKind
    value_kind: ValueKind
    num_keys: int
    num_values: int
    num_queries: int

    @property
    def template(self) -> str:
        """The prompt around an example."""
        noun = self.value_kind
        return (
            f"The text below registers {noun}s for names. Remember which {noun} belongs to which "
            "name: a question follows the text.\n\n{context}\n\n{input}"
        )

    @property
    def smallest(self) -> int:
        """Fewest units of haystack: each fact can have a place of its own."""
        return self.num_keys * self.num_values

    def row(self, num_units: int, *, rng: random.Random, texts: Texts) -> dict[str, Any]:
        """Returns an example: the facts asked for and ``num_units`` of haystack around them."""
        noun, num_hidden = self.value_kind, self.num_keys * self.num_values
        num_others = num_units if self.haystack == "facts" else 0
        keys = _keys(self.key_kind, self.num_keys + num_others, rng)
        values = _values(noun, num_hidden + num_others, rng)
        owned = {
            key: values[i * self.num_values : (i + 1) * self.num_values]
            for i, key in enumerate(keys[: self.num_keys])
        }
        hidden = [_fact(noun, key, value) for key in owned for value in owned[key]]
        pairs = zip(keys[self.num_keys :], values[num_hidden:], strict=True)
        others = [_fact(noun, key, value) for key, value in pairs]
        rng.shuffle(hidden)
        asked = rng.sample(list(owned), self.num_queries)
        return {
            "input": self._question(asked),
            "context": self._context(hidden, others, num_units, rng=rng, texts=texts),
            "answers": [value for key in asked for value in owned[key]],
        }

    @property
    def _asks_one(self) -> bool:
        return self.num_values * self.num_queries == 1

    def _question(self, keys: Sequence[str]) -> str:
        names = keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])} and {keys[-1]}"
        noun = self.value_kind
        if self._asks_one:
            return (
                f"Which {noun} is registered for {names}?\n"
                f"Answer: The {noun} registered for {names} is"
            )
        return (
            f"Which {noun}s are registered for {names}? Name all of them.\n"
            f"Answer: The {noun}s registered for {names} are"
        )

    def _context(
        self,
        hidden: Sequence[str],
        others: list[str],
        num_units: int,
        *,
        rng: random.Random,
        texts: Texts,
    ) -> str:
        if self.haystack == "facts":
            return "\n".join(insert(hidden, others, _anywhere(len(hidden), num_units, rng)))
        text = texts.noise if self.haystack == "noise" else texts.prose
        places = _anywhere if self.haystack == "noise" else _depths
        units = text.draw(num_units, first=rng.randrange(len(text.units)))
        return text.separator.join(insert(hidden, units, places(len(hidden), num_units, rng)))


def insert(new: Sequence[str], units: list[str], places: Sequence[int]) -> list[str]:
    """Returns the units with new ones in order, each before the unit of its place; places rise."""
    whole = list(units)
    for unit, place in reversed(list(zip(new, places, strict=True))):
        whole.insert(place, unit)
    return whole


def _anywhere(num_places: int, num_units: int, rng: random.Random) -> list[int]:
    return sorted(rng.sample(range(num_units + 1), num_places))


def _depths(num_places: int, num_units: int, rng: random.Random) -> list[int]:
    depths = sorted(rng.sample(range(NUM_DEPTHS), num_places))
    return [round(num_units * depth / (NUM_DEPTHS - 1)) for depth in depths]


def _fact(kind: ValueKind, key: str, value: str) -> str:
    return f"The {kind} registered for {key} is {value}."


def _keys(kind: KeyKind, count: int, rng: random.Random) -> list[str]:
    if kind == "code":
        return _codes(count, rng)
    return [pair(index) for index in rng.sample(range(NUM_PAIRS), count)]


def _values(kind: ValueKind, count: int, rng: random.Random) -> list[str]:
    if kind == "code":
        return _codes(count, rng)
    return [str(number) for number in rng.sample(range(10**6, 10**7), count)]


def _codes(count: int, rng: random.Random) -> list[str]:
    return [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(count)]
