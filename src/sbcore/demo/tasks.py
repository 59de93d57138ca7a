"""The demo's tasks: facts or code in real text, and questions about them.

Each function makes a script of an exact length with a given number of questions (as many as fit
if there is less room): many in training, where every answer is supervised, one in evaluation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from sbcore.demo.layout import add_round, between, one_round, share
from sbcore.demo.script import Exchange, Script
from sbcore.demo.text import Piece, Text
from sbcore.demo.words import (
    FACTS,
    FURTHER,
    LABEL_QUESTIONS,
    NUM_KEYS,
    NUM_VALUES,
    QUESTIONS,
    VALUES,
)

TaskMaker = Callable[[int, int, Text, Generator], Script]
"""(num_tokens, num_questions, text, rng) -> a script of num_tokens."""


@dataclass(frozen=True, slots=True)
class DemoTask:
    """A task and how it is scored; ``chance`` in percent, None where it is measured."""

    make: TaskMaker
    metric: str
    max_new_tokens: int
    category: str
    chance: float | None


def recall(num_tokens: int, num_questions: int, text: Text, rng: Generator) -> Script:
    """Up to 16 facts scattered in the text, in one to four rounds of text and questions."""
    num_keys = between(2, min(NUM_KEYS, num_tokens // 8), rng)
    keys, values = rng.permutation(NUM_KEYS)[:num_keys], rng.integers(NUM_VALUES, size=num_keys)
    rounds = min(int(rng.integers(1, 5)), num_questions, num_keys)
    script = Script()
    for part in range(rounds):
        known = num_keys * (part + 1) // rounds
        new = range(num_keys * part // rounds, known)
        add_round(
            script,
            share(num_tokens, part, rounds),
            facts=[FACTS[keys[i]][values[i]] for i in new],
            asked=[
                (QUESTIONS[keys[i]], [VALUES[values[i]]])
                for i in rng.integers(known, size=share(num_questions, part, rounds))
            ],
            text=text,
            rng=rng,
        )
    return script


def multi_value(num_tokens: int, num_questions: int, text: Text, rng: Generator) -> Script:
    """Two values for each key, in different places; the answer gives the smaller one first.

    The answer names the key again before the second value, so that the key need not be carried
    over from the question: without that, every other seed never learned the second value. Each key
    is asked for once: a second answer would be copied from the first one, not found in the text.
    """
    num_keys = min(8, max(1, num_tokens // 16))
    keys = rng.permutation(NUM_KEYS)[:num_keys]
    values = [np.sort(rng.permutation(NUM_VALUES)[:2]) for _ in keys]
    facts = [FACTS[key][value] for key, pair in zip(keys, values, strict=True) for value in pair]
    asked = [
        (QUESTIONS[keys[i]], [VALUES[values[i][0]], FURTHER[keys[i]], VALUES[values[i][1]]])
        for i in rng.permutation(num_keys)[:num_questions]
    ]
    return one_round(num_tokens, facts, asked, text, rng)


def needle(num_tokens: int, num_questions: int, text: Text, rng: Generator) -> Script:
    """One to four facts in much text; each is asked for at most twice."""
    num_keys = min(4, max(1, num_tokens // 48))
    keys, values = rng.permutation(NUM_KEYS)[:num_keys], rng.integers(NUM_VALUES, size=num_keys)
    order = np.concatenate([rng.permutation(num_keys), rng.permutation(num_keys)])
    asked = [(QUESTIONS[keys[i]], [VALUES[values[i]]]) for i in order[:num_questions]]
    facts = [FACTS[key][value] for key, value in zip(keys, values, strict=True)]
    return one_round(num_tokens, facts, asked, text, rng)


def few_shot(num_tokens: int, num_questions: int, text: Text, rng: Generator) -> Script:
    """Classes with two or three right examples and fewer wrong ones: what is the usual label?

    Each class is asked for once, as in `multi_value`.
    """
    num_classes = min(6, max(1, num_tokens // 20))
    keys, labels = rng.permutation(NUM_KEYS)[:num_classes], rng.integers(8, size=num_classes)
    facts: list[str] = []
    for key, label in zip(keys, labels, strict=True):
        num_right = int(rng.integers(2, 4))
        wrong = rng.permutation([v for v in range(NUM_VALUES) if v != label])
        num_wrong = int(rng.integers(1, num_right))
        facts += [FACTS[key][label]] * num_right + [FACTS[key][v] for v in wrong[:num_wrong]]
    asked = [
        (LABEL_QUESTIONS[keys[i]], [VALUES[labels[i]]])
        for i in rng.permutation(num_classes)[:num_questions]
    ]
    return one_round(num_tokens, facts, asked, text, rng)


def next_line(num_tokens: int, num_questions: int, text: Text, rng: Generator) -> Script:
    """Source code; some of its lines, the last one among them, are to be written.

    An answer ends before its line's end: else the end token would follow a line feed as often as
    a line does, and the model would answer nothing.
    """
    num_answers = max(1, min(num_questions, num_tokens // _TOKENS_PER_LINE))
    in_lines = num_tokens - num_answers + 1  # end tokens more, the last line feed less
    lines, telling = _lines_that_tell(in_lines, num_answers, text, rng)
    last = telling.pop()
    answered = {last, *rng.permutation(telling)[: num_answers - 1].tolist()}
    script = Script()
    for number, line in enumerate(lines):
        if number not in answered:
            script.tell([line])
            continue
        answer, line_end = line.cut_line_end()
        script.ask([Exchange((), (answer,))])
        if number != last:
            script.tell([line_end])
    return script


TASKS = {
    "recall": DemoTask(recall, "exact", 2, "retrieval", 100 / NUM_VALUES),
    "multi_value": DemoTask(multi_value, "match_all", 4, "retrieval", 100 * 2 / NUM_VALUES),
    "needle": DemoTask(needle, "exact", 2, "retrieval", 100 / NUM_VALUES),
    "few_shot": DemoTask(few_shot, "exact", 2, "few_shot", 100 / NUM_VALUES),
    "next_line": DemoTask(next_line, "code_sim", 48, "code", None),
}

_TOKENS_PER_LINE = 512  # of next_line: its loss is high and stays so, it must not rule the mean
_SHORTEST_ANSWER = 8  # characters of next_line; a bracket alone says nothing


def _lines_that_tell(
    num_tokens: int, at_least: int, text: Text, rng: Generator
) -> tuple[list[Piece], list[int]]:
    """Returns lines, and the numbers of those worth predicting: the last one is."""
    while True:
        lines = text.lines(num_tokens, rng)
        telling = [i for i, line in enumerate(lines) if len(line.text.strip()) >= _SHORTEST_ANSWER]
        if len(telling) >= at_least and telling[-1] == len(lines) - 1:
            return lines, telling
