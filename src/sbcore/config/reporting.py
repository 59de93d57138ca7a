"""Evaluation, tracking, report."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt

from sbcore.config.section import Section

MADE_SETS = ("niah", "ruler", "ruler_files", "longbench_v2")
"""Keys of sets of evaluation tasks, each a folder of its own."""


def _must_differ(values: list[int]) -> list[int]:
    if len(set(values)) < len(values):
        raise ValueError("some are there twice. leave them out")
    return values


Lengths = Annotated[list[PositiveInt], Field(min_length=1), AfterValidator(_must_differ)]


class NiahConfig(Section):
    """A grid of one hidden fact: lengths times depths."""

    lengths: Lengths = [1024, 2048, 4096]
    """Tokens of prompt and answer; a task niah_LENGTH for each."""
    num_depths: Annotated[int, Field(ge=2)] = 5
    """Places of the fact, from the beginning of the text to its end."""
    spacing: Literal["linear", "sigmoid"] = "linear"
    """linear: equal distances; sigmoid: closer ones near both ends."""
    num_examples: PositiveInt = 4
    """Examples of each length and depth."""
    haystack: str = "prose"
    """The text around it: noise (one line, repeated), prose (made sentences), or a file or folder
    of texts (.txt, .md, .jsonl with a field text)."""
    sentence: str = "The access code of the north gate is {value}."
    """The fact; {value} stands for seven digits, others in each example."""
    question: str = "What is the access code of the north gate?"
    """What is asked for at the end."""
    answer: str = "{value}"
    """What the prediction must hold; part of the sentence."""
    max_new_tokens: PositiveInt = 32
    """Tokens of an answer."""


class RulerConfig(Section):
    """RULER's tasks at several lengths, as far as they can be made without data of others."""

    tasks: list[str] = []
    """Names as lm-evaluation-harness has them (niah_single_1, ruler_vt); empty = all 11."""
    lengths: Lengths = [4096]
    """Tokens of prompt and answer; a task NAME_LENGTH for each."""
    num_examples: PositiveInt = 50
    """Examples of each task and length; RULER's authors take 500."""
    haystack: str = "prose"
    """The text around facts where RULER takes essays; as in niah."""


class EvaluateConfig(Section):
    """Tasks that the trained models are scored on."""

    tasks: list[str] = ["recall", "multi_value", "needle", "few_shot", "next_line"]
    """Names of tasks, or of groups: longbench, longbench_e, longbench_v2, niah, ruler; none = no
    evaluation."""
    longbench: str | None = None
    """A LongBench folder as its authors ship it, or one that describes its tasks in a tasks.json;
    null = the demo's own tasks."""
    longbench_v2: str | None = None
    """The folder of LongBench v2's repository, with its data.json; null = not read."""
    niah: NiahConfig | None = None
    """One fact in a long text; null = not made."""
    ruler: RulerConfig | None = None
    """RULER, made here; null = not made."""
    ruler_files: dict[PositiveInt, str] = {}
    """Folders that RULER's own scripts wrote, by max_seq_length."""
    prompt_style: Literal["plain", "chat"] = "plain"
    """chat: tasks that ask for it go through the tokenizer's chat template, as instruction-tuned
    models want; plain: none does, as base models are asked."""
    decoding: Literal["dense", "sparse"] = "dense"
    """What new tokens see in sparse variants: dense = all of the prompt, sparse = top_k blocks, as
    in training."""
    max_prompt_tokens: PositiveInt = 4096
    """Longer prompts lose their middle."""
    batch_size: PositiveInt = 16
    """Most prompts generated together."""
    batch_tokens: PositiveInt = 65_536
    """Most tokens of prompts read in one pack, padded twice as many; a longer prompt goes alone."""
    max_examples: PositiveInt = 200
    """Most examples per task."""
    curve_top_k: list[PositiveInt] = []
    """Budgets of `sb budget-curve`, blocks; empty = 1, 2, 4, ... up to the longest prompt."""

    @property
    def made_sets(self) -> list[str]:
        """Sets of tasks that are made for the run's tokenizer, or taken over: their keys here."""
        return [key for key in MADE_SETS if getattr(self, key)]


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
