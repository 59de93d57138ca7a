"""Evaluation, tracking, report."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, PositiveInt

from sbcore.config.section import Section


class EvaluateConfig(Section):
    """Tasks that the trained models are scored on."""

    tasks: list[str] = ["recall", "multi_value", "needle", "few_shot", "next_line"]
    """Names from the demo's tasks or LongBench's; none = no evaluation."""
    longbench: str | None = None
    """A LongBench folder as its authors ship it, or one that describes its tasks in a tasks.json;
    null = the demo's own tasks."""
    prompt_style: Literal["plain", "chat"] = "plain"
    """chat: tasks that ask for it go through the tokenizer's chat template, as instruction-tuned
    models want; plain: none does, as base models are asked."""
    max_prompt_tokens: PositiveInt = 4096
    """Longer prompts lose their middle."""
    batch_size: PositiveInt = 8
    """Prompts generated together."""
    max_examples: PositiveInt = 200
    """Most examples per task."""


def _yaml_switch(value: object) -> object:
    """Returns the word that was written: yaml reads an unquoted on or off as true or false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class TrackingConfig(Section):
    """MLflow."""

    enabled: Annotated[Literal["auto", "on", "off"], BeforeValidator(_yaml_switch)] = "auto"
    """auto: on when mlflow can be imported; off: only the files under results/."""
    uri: str | None = None
    """Tracking server; null = MLFLOW_TRACKING_URI, else a sqlite file under results/."""
    experiment: str = "sparsebalance"
    """MLflow experiment."""
