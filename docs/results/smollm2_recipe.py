"""What SmolLM2's evidence is made with: a real pretrained model, continued under four variants.

Scaled down by 8 from the paper's setting, as `quality_recipe` is: 8,192 tokens stand for 65,536,
blocks of 128 with top_k 8 (1,024 tokens) for a budget of 8,192. Training data are bimodal: meetings
of QMSum near the longest sample, made tasks most of which are short.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quality_recipe import METHODS, scaled_latency

from sbcore.artifacts import read_json, write_json
from sbcore.config.schema import Config
from sbcore.latency.analytic import AnalyticLatencyModel

BEFORE = ("before_dense", "before_baseline")
"""The start itself, read densely and at the fixed budget."""

NUM_LAYERS = 30
ANSWER_TOKENS = 512
"""Positions kept free for a question, an answer and the chat template."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The sizes; `small` is for a look at whether everything runs."""

    block_size: int = 128
    top_k: int = 8
    num_layers: int = NUM_LAYERS
    max_tokens: int = 8192
    num_questions: int = 640
    """Samples of QMSum, one question about a meeting each."""
    made_tasks: tuple[str, ...] = (
        *("niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1"),
        *("niah_multikey_2", "niah_multivalue", "niah_multiquery", "ruler_vt"),
    )
    made_lengths: tuple[int, ...] = (640, 1024, 2048, 4096, 7680)
    made_counts: tuple[int, ...] = (60, 50, 30, 15, 6)
    """Samples of each made task and length."""
    global_batch: int = 16
    learning_rate: float = 5e-5
    num_ranks: int = 4
    micro_batch_tokens: int = 16_384
    niah_lengths: tuple[int, ...] = (2048, 4096, 7500)
    num_niah_examples: int = 16
    """Examples of each length and depth; five depths."""
    ruler_tasks: tuple[str, ...] = ("niah_multikey_1", "niah_multivalue", "ruler_vt")
    ruler_lengths: tuple[int, ...] = (4096,)
    num_ruler_examples: int = 64
    max_prompt_tokens: int = 7500
    max_examples: int = 200
    batch_tokens: int = 131_072

    def write(self, folder: Path) -> None:
        """Writes ``recipe.json``."""
        write_json(folder / "recipe.json", asdict(self))

    @staticmethod
    def read(folder: Path) -> "Recipe":
        """Returns the recipe of a prepared folder."""
        read = read_json(folder / "recipe.json").items()
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in read}
        return Recipe(**values)

    def config(self, *, seed: int) -> Config:
        """Returns the run's configuration with this seed."""
        return Config.model_validate(
            {
                "run": "smollm2",
                "seed": seed,
                "data": {"max_sample_tokens": self.max_tokens},
                "sampling": {"global_batch": self.global_batch},
                "attention": {"block_size": self.block_size, "top_k": self.top_k},
                "topology": {"num_ranks": self.num_ranks, "max_tokens": self.micro_batch_tokens},
                "train": {"learning_rate": self.learning_rate},
                "evaluate": self._evaluation(),
                "variants": METHODS,
            }
        )

    def latency(self) -> AnalyticLatencyModel:
        """Returns the predicted times: 24 layers' worth in this model's, at 8-fold lengths."""
        return scaled_latency(block_size=self.block_size, num_layers=self.num_layers)

    def _evaluation(self) -> dict[str, object]:
        return {
            "tasks": ["longbench", "niah", "ruler"],
            "niah": {
                "lengths": list(self.niah_lengths),
                "num_examples": self.num_niah_examples,
            },
            "ruler": {
                "tasks": list(self.ruler_tasks),
                "lengths": list(self.ruler_lengths),
                "num_examples": self.num_ruler_examples,
            },
            "prompt_style": "chat",
            "max_prompt_tokens": self.max_prompt_tokens,
            "max_examples": self.max_examples,
            "batch_size": 64,
            "batch_tokens": self.batch_tokens,
        }


def small() -> Recipe:
    """Returns a recipe that a processor runs through in minutes, with a model of random weights."""
    return Recipe(
        block_size=32,
        top_k=4,
        num_layers=2,
        max_tokens=1024,
        num_questions=16,
        made_lengths=(640,),
        made_counts=(2,),
        micro_batch_tokens=1024,
        niah_lengths=(256, 480),
        num_niah_examples=1,
        ruler_tasks=("niah_multivalue",),
        ruler_lengths=(480,),
        num_ruler_examples=2,
        max_prompt_tokens=480,
        max_examples=2,
        batch_tokens=2048,
    )
