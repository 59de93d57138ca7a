"""Similarity of a predicted next line of code with the true one, in whole percent.

Two forms exist in published scores and differ by 2 points: the official one is Python's difflib;
where a C library for edit distances was installed, the same script silently took the InDel ratio.
"""

from collections.abc import Callable
from difflib import SequenceMatcher


def code_sim(prediction: str, answer: str) -> float:
    """Returns difflib's ratio of the first code line and the answer, in steps of 0.01."""
    return _whole_percent(_first_code_line(prediction), answer, _difflib_ratio)


def code_sim_indel(prediction: str, answer: str) -> float:
    """Returns the InDel ratio of the first code line and the answer, in steps of 0.01."""
    return _whole_percent(_first_code_line(prediction), answer, _indel_ratio)


def _first_code_line(prediction: str) -> str:
    lines = prediction.lstrip("\n").split("\n")
    code = (line for line in lines if not any(mark in line for mark in ("`", "#", "//")))
    return next(code, "")


def _whole_percent(line: str, answer: str, ratio: Callable[[str, str], float]) -> float:
    if line == answer:
        return 1.0
    return round(100 * ratio(line, answer)) / 100


def _difflib_ratio(line: str, answer: str) -> float:
    return SequenceMatcher(None, line, answer).ratio()


def _indel_ratio(line: str, answer: str) -> float:
    return 2 * _common_subsequence(line, answer) / (len(line) + len(answer))


def _common_subsequence(left: str, right: str) -> int:
    # Bit-parallel (Hyyrö 2004): a zero bit of `open_bits` is a matched character of `left`.
    full = (1 << len(left)) - 1
    where: dict[str, int] = {}
    for position, character in enumerate(left):
        where[character] = where.get(character, 0) | 1 << position
    open_bits = full
    for character in right:
        matched = open_bits & where.get(character, 0)
        open_bits = ((open_bits + matched) | (open_bits - matched)) & full
    return len(left) - open_bits.bit_count()
