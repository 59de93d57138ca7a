"""The two texts that tasks hide things in."""

from dataclasses import dataclass

from sbcore.evaluate.niah.haystack import Haystack, open_haystack


@dataclass(frozen=True, slots=True)
class Texts:
    """Repeated filler, and sentences that differ from each other."""

    noise: Haystack
    prose: Haystack


def open_texts(haystack: str) -> Texts:
    """Returns the built-in noise, and as prose what `open_haystack` finds under this name."""
    return Texts(noise=open_haystack("noise"), prose=open_haystack(haystack))
