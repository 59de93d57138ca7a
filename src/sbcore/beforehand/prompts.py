"""Prompts of a made length that the limit would cut, and depths that would not all be asked."""

from collections.abc import Iterator

from sbcore.beforehand.mistake import Mistake, wrong_value
from sbcore.config.reporting import EvaluateConfig
from sbcore.config.schema import Config
from sbcore.evaluate.ruler.tasks import TASKS as RULER

_GROUPS = {"niah": "niah", "ruler": "ruler", "ruler_files": "ruler"}
"""What all tasks of a set are asked for by."""


def cut_prompts(config: Config) -> Iterator[Mistake]:
    """Yields a limit that would cut the hidden fact out of prompts that are asked for."""
    evaluate = config.evaluate
    asked = {key: _asked(key, evaluate) for key in _GROUPS}
    for key, lengths in asked.items():
        if max(lengths, default=0) > evaluate.max_prompt_tokens:
            wrong = (
                f"evaluate.{key} has prompts of {max(lengths)} tokens, whose middle would go. "
                "raise it."
            )
            keys = ("evaluate", "max_prompt_tokens")
            yield wrong_value(keys, evaluate.max_prompt_tokens, wrong)
    niah, most = evaluate.niah, evaluate.max_examples
    if niah is not None and asked["niah"] and niah.num_depths > most:
        wrong = f"evaluate.niah.num_depths = {niah.num_depths}, some would not be asked. raise it."
        yield wrong_value(("evaluate", "max_examples"), most, wrong)


def _asked(key: str, evaluate: EvaluateConfig) -> list[int]:
    """Returns the lengths of the set's tasks that are asked for, by any of their names."""
    names = set(evaluate.tasks)
    return [
        length
        for base, length in _tasks(key, evaluate)
        if names & {_GROUPS[key], base, f"{base}_{length}"}
    ]


def _tasks(key: str, evaluate: EvaluateConfig) -> list[tuple[str, int]]:
    """Returns the tasks of a set, without and with their length; RULER's scripts may write all."""
    niah, ruler = evaluate.niah, evaluate.ruler
    if key == "niah":
        return [] if niah is None else [("niah", length) for length in niah.lengths]
    if key == "ruler_files":
        return [(base, length) for base in RULER for length in evaluate.ruler_files]
    if ruler is None:
        return []
    return [(base, length) for base in ruler.tasks or RULER for length in ruler.lengths]
