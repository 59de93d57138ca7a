"""Prompts of a made length: whatever name they are asked for by, the limit is looked at."""

from typing import Any

import pytest

from sbcore.beforehand.prompts import cut_prompts
from sbcore.config.schema import Config

RULER = {"lengths": [512, 8192]}
SOME = RULER | {"tasks": ["ruler_vt"]}
FILES = {"ruler_files": {512: "a", 8192: "b"}}

CUT = [
    ({"niah": {"lengths": [1024, 8192]}, "tasks": ["niah_8192"]}, "niah"),
    ({"niah": {"lengths": [1024, 8192]}, "tasks": ["recall", "niah"]}, "niah"),
    ({"ruler": RULER, "tasks": ["niah_single_1"]}, "ruler"),
    ({"ruler": RULER, "tasks": ["niah_single_1_8192"]}, "ruler"),
    ({"ruler": SOME, "tasks": ["ruler_vt"]}, "ruler"),
    (FILES | {"tasks": ["ruler"]}, "ruler_files"),
    (FILES | {"tasks": ["ruler_cwe_8192"]}, "ruler_files"),
]
FINE = [
    {"niah": {"lengths": [1024, 8192]}, "tasks": ["niah_1024"]},
    {"niah": {"lengths": [8192]}, "ruler": {}, "tasks": ["ruler"]},
    {"ruler": RULER, "tasks": ["niah_single_1_512"]},
    {"ruler": RULER, "tasks": ["recall"]},
    {"ruler": SOME, "tasks": ["niah_single_1_8192"]},  # not made: another mistake
    FILES | {"tasks": ["ruler_cwe_512", "niah"]},
    {"ruler": {"lengths": [4096]}, "tasks": ["ruler"]},
    {"niah": {"num_depths": 9}, "tasks": ["niah_1024"], "max_examples": 9},
    {"niah": {"num_depths": 9}, "tasks": ["recall"], "max_examples": 8},
]


def said_of(evaluate: dict[str, Any]) -> list[str]:
    return [mistake.line for mistake in cut_prompts(Config.model_validate({"evaluate": evaluate}))]


@pytest.mark.parametrize(("evaluate", "key"), CUT)
def test_the_longest_prompt_that_is_asked_for_must_fit(evaluate: dict[str, Any], key: str) -> None:
    (line,) = said_of(evaluate)
    assert line == (
        f"evaluate.max_prompt_tokens = 4096: evaluate.{key} has prompts of 8192 tokens, whose "
        "middle would go. raise it."
    )


@pytest.mark.parametrize("evaluate", FINE)
def test_what_fits_or_is_not_asked_for_is_fine(evaluate: dict[str, Any]) -> None:
    assert said_of(evaluate) == []


def test_all_depths_are_asked_of_a_single_length_too() -> None:
    (line,) = said_of({"niah": {"num_depths": 9}, "tasks": ["niah_1024"], "max_examples": 8})
    assert line.startswith("evaluate.max_examples = 8: evaluate.niah.num_depths = 9, ")
