"""What the quality evidence is made with: a small model, long samples, four variants, some seeds.

Scaled down by 8 from the paper's setting: 8,192 tokens stand for 65,536, blocks of 64 with top_k
16 (1,024 tokens) for 256 with 32 (8,192). Budgets are tuned as for ranks that would feel them:
predicted times are those of 8-fold lengths by formula, since this model's own are all launching.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sbcore.artifacts import read_json, write_json
from sbcore.config.schema import Config
from sbcore.latency.analytic import AnalyticLatencyModel

METHODS = {
    "dense": {"attention": "dense", "balancer": {"kind": "length"}},
    "baseline": {"balancer": {"kind": "random"}},
    "sab_dst": {"balancer": {"kind": "sab"}, "tuner": {"kind": "anchor", "p": 0.1}},
    "sab_waterfill": {"balancer": {"kind": "sab"}, "tuner": {"kind": "waterfill", "p": 0.1}},
}
VARIANTS = tuple(METHODS)
SCALE = 8

_NUM_LAYERS, _FLOOR_MS, _MS_PER_TOKEN = 24, 150.0, 0.01
_COEFFICIENTS = np.array([0.05, 1e-5, 7e-8, 1e-6])  # as `sb simulate`: about 0.5B on one H100
_GROWTH = np.array([1, SCALE, SCALE**2, SCALE])  # of call, tokens, pairs, scores with the length


@dataclass(frozen=True, slots=True)
class Recipe:
    """The sizes; `small` is for a look at whether everything runs."""

    hidden_size: int = 512
    intermediate_size: int = 1408
    num_layers: int = 8
    num_heads: int = 8
    num_key_heads: int = 2
    vocab_size: int = 4096
    block_size: int = 64
    top_k: int = 16
    num_samples: int = 4608
    median_tokens: int = 700
    sigma: float = 1.0
    max_tokens: int = 8192
    global_batch: int = 16
    num_epochs: int = 1
    learning_rate: float = 5e-4
    num_ranks: int = 4
    micro_batch_tokens: int = 16_384
    base_steps: int = 400
    base_tokens_per_step: int = 16_384
    base_muon_rate: float = 2e-3
    base_adam_rate: float = 2e-3
    base_least_right: float = (
        80.0  # %, of recall and needle at the end, or nothing is worth going on
    )
    eval_lengths: tuple[int, ...] = (1024, 2048, 4096, 8192)
    num_eval_samples: int = 240  # of each task, over all lengths

    def write(self, folder: Path) -> None:
        """Writes ``recipe.json``."""
        write_json(folder / "recipe.json", asdict(self))

    @staticmethod
    def read(folder: Path) -> "Recipe":
        """Returns the recipe of a prepared folder."""
        values = read_json(folder / "recipe.json")
        return Recipe(**values | {"eval_lengths": tuple(values["eval_lengths"])})

    def config(self, *, seed: int) -> Config:
        """Returns the run's configuration with this seed."""
        return Config.model_validate(
            {
                "run": "quality",
                "seed": seed,
                "demo": {
                    "num_samples": self.num_samples,
                    "num_eval_samples": self.num_eval_samples,
                    "eval_lengths": list(self.eval_lengths),
                    "vocab_size": self.vocab_size,
                    "lengths": {
                        "median_tokens": self.median_tokens,
                        "sigma": self.sigma,
                        "max_tokens": self.max_tokens,
                    },
                },
                "data": {"max_sample_tokens": self.max_tokens},
                "sampling": {"global_batch": self.global_batch, "num_epochs": self.num_epochs},
                "model": {"shape": self._shape()},
                "attention": {"block_size": self.block_size, "top_k": self.top_k},
                "topology": {"num_ranks": self.num_ranks, "max_tokens": self.micro_batch_tokens},
                "train": {"learning_rate": self.learning_rate},
                "evaluate": {
                    "max_prompt_tokens": self.max_tokens,
                    "max_examples": self.num_eval_samples,
                    "batch_size": 64,
                },
                "variants": METHODS,
            }
        )

    def latency(self) -> AnalyticLatencyModel:
        """Returns the predicted times: 24 layers' worth in this model's, at 8-fold lengths."""
        return scaled_latency(block_size=self.block_size, num_layers=self.num_layers)

    def _shape(self) -> dict[str, float]:
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_key_heads,
            "initializer_range": 0.02 if self.hidden_size > 128 else 0.04,
        }


def small() -> Recipe:
    """Returns a recipe that a processor runs through in minutes; it learns next to nothing."""
    return Recipe(
        hidden_size=64,
        intermediate_size=128,
        num_layers=2,
        num_heads=1,
        num_key_heads=1,
        vocab_size=1024,
        block_size=16,
        top_k=4,
        num_samples=64,
        median_tokens=100,
        max_tokens=512,
        micro_batch_tokens=512,
        base_steps=12,
        base_tokens_per_step=2048,
        base_least_right=0.0,
        eval_lengths=(128, 256),
        num_eval_samples=8,
    )


def scaled_latency(*, block_size: int, num_layers: int) -> AnalyticLatencyModel:
    """Returns what 24 layers take at 8-fold lengths, for a model of so many layers."""
    return AnalyticLatencyModel(
        block_size=block_size,
        num_layers=num_layers,
        floor_ms=_FLOOR_MS,
        constant_ms=0.0,
        ms_per_token=_MS_PER_TOKEN * SCALE,
        coefficients=_COEFFICIENTS * _GROWTH * (_NUM_LAYERS / num_layers),
    )
