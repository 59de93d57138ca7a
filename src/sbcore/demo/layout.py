"""How a script is laid out: facts scattered in text, questions behind it."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from sbcore.demo.script import Exchange, Script
from sbcore.demo.text import Piece, Text

Asked = Sequence[tuple[str, list[str]]]
"""Questions and the words of their answers."""


def one_round(
    num_tokens: int, facts: list[str], asked: Asked, text: Text, rng: Generator
) -> Script:
    """Returns a script of text with the facts in it and the questions behind it."""
    script = Script()
    add_round(script, num_tokens, facts=facts, asked=asked, text=text, rng=rng)
    return script


def add_round(
    script: Script,
    num_tokens: int,
    *,
    facts: Sequence[str],
    asked: Asked,
    text: Text,
    rng: Generator,
) -> None:
    """Adds num_tokens: text with the facts in it, then as many of the questions as fit."""
    words, left = text.words, num_tokens - len(facts)
    exchanges: list[Exchange] = []
    for question, answer in asked:
        exchange = Exchange((words[question],), tuple(words[word] for word in answer))
        if exchange.num_tokens > left:
            break
        exchanges.append(exchange)
        left -= exchange.num_tokens
    script.tell(_scatter([words[fact] for fact in facts], text.lines(left, rng), rng))
    script.ask(exchanges)


def _scatter(facts: Sequence[Piece], lines: list[Piece], rng: Generator) -> list[Piece]:
    """Returns the lines with the facts between them, in random order and places."""
    mixed: list[Piece] = []
    places = np.sort(rng.integers(len(lines) + 1, size=len(facts)))
    order = rng.permutation(len(facts))
    start = 0
    for place, fact in zip(places, order, strict=True):
        mixed += [*lines[start:place], facts[fact]]
        start = place
    return mixed + lines[start:]


def between(low: int, high: int, rng: Generator) -> int:
    """Returns a number from low to high, each octave as likely as the others."""
    return round(float(np.exp(rng.uniform(np.log(low), np.log(max(low, high))))))


def share(total: int, part: int, parts: int) -> int:
    """Returns the size of one of nearly equal whole parts."""
    return total * (part + 1) // parts - total * part // parts
