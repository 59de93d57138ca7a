"""Variable tracking: a value is handed from variable to variable, the steps scattered in noise."""

import random
import string
from dataclasses import dataclass
from typing import Any

from sbcore.evaluate.ruler.retrieval import insert
from sbcore.evaluate.ruler.texts import Texts

_NAME_LETTERS = 5
_EXAMPLE_UNITS = 8


@dataclass(frozen=True, slots=True)
class Tracing:
    """One chain of ``num_hops`` hand-overs after the first assignment, and a solved example."""

    num_hops: int

    template = (
        "Follow the variables through the text: each one gets a number, or the value of a variable "
        "before it.\n\n{example}\n\n{context}\n\n{input}"
    )

    @property
    def smallest(self) -> int:
        """Fewest units of noise: each step can have a place of its own."""
        return self.num_hops + 1

    def row(self, num_units: int, *, rng: random.Random, texts: Texts) -> dict[str, Any]:
        """Returns an example: a chain in ``num_units`` lines, and a shorter one with its answer."""
        names = _names(2 * (self.num_hops + 1), rng)
        shown, asked = names[: self.num_hops + 1], names[self.num_hops + 1 :]
        numbers = [str(number) for number in rng.sample(range(10_000, 100_000), 2)]
        example = _chain(shown, numbers[0], texts.noise.draw(_EXAMPLE_UNITS, first=0), rng=rng)
        question = _question(numbers[0], len(shown))
        return {
            "input": _question(numbers[1], len(asked)),
            "context": _chain(asked, numbers[1], texts.noise.draw(num_units, first=0), rng=rng),
            "answers": asked,
            "example": f"{example}\n\n{question} {', '.join(shown)}.",
        }


def _chain(names: list[str], number: str, units: list[str], *, rng: random.Random) -> str:
    sources = [number, *names[:-1]]
    steps = [f"SET {name} = {source}." for name, source in zip(names, sources, strict=True)]
    places = sorted(rng.sample(range(len(units) + 1), len(steps)))
    return "\n".join(insert(steps, units, places))


def _question(number: str, num_names: int) -> str:
    return (
        f"Which {num_names} variables have the value {number} in the end?\n"
        f"Answer: The {num_names} variables with the value {number} are"
    )


def _names(count: int, rng: random.Random) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(rng.choices(string.ascii_uppercase, k=_NAME_LETTERS))] = None
    return list(found)
