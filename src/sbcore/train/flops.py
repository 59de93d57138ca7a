"""What a step had to compute, counted three ways (multiply-adds count twice).

useful: every weight's product with every token forward and backward, and attention over the pairs
really attended. dense_equivalent: the same with all causal pairs, a measure of throughput; cutting
budgets raises it and lowers ``useful``. executed: ``useful`` and what recomputation ran again.
N sequences, L layers.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sbcore.latency.pairs import attention_pairs
from sbcore.model.recompute import Recompute
from sbcore.plan.read import StepPlan
from sbcore.types import FloatArray, IntArray

PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}
"""Dense bf16 peaks of the vendor's datasheets (SXM), by what the device's name holds."""


@dataclass(frozen=True)
class Work:
    """Floating-point operations, all ranks."""

    useful: float
    dense_equivalent: float
    executed: float


@dataclass(frozen=True)
class ModelFacts:
    """What the count needs of a model."""

    layer_weights: int  # parameters of all layers that multiply every token
    trained_weights: int  # those of them with a gradient of their own
    weights_again: int  # those that recomputation multiplies again: all but the last product's
    head_weights: int  # of the vocabulary head, which sees target tokens only
    num_layers: int
    num_heads: int
    head_dim: int


def count(
    model: ModelFacts,
    lengths: IntArray,
    top_k: IntArray,
    *,
    block_size: int,
    num_target_tokens: int,
    recomputed: FloatArray,
    attention_again: bool,
) -> Work:
    """Returns the work of a step: lengths [N], top_k [L, N], recomputed [N] 1 where run again.

    ``attention_again`` says whether recomputation runs attention too.
    """
    tokens = lengths.astype(np.float64)
    each_token = 4.0 * model.layer_weights + 2.0 * model.trained_weights
    linear = each_token * float(tokens.sum()) + 6.0 * model.head_weights * num_target_tokens
    # Scores and values: 2 products of 2 operations forward, twice that backward.
    per_pair = 12.0 * model.num_heads * model.head_dim
    pairs = attention_pairs(lengths, top_k, block_size=block_size)
    dense = model.num_layers * tokens * (tokens + 1) / 2
    again = 2.0 * model.weights_again * (tokens * recomputed).sum()
    if attention_again:
        again += per_pair / 3 * (pairs.sum(axis=0) * recomputed).sum()
    useful = linear + per_pair * float(pairs.sum())
    return Work(useful, linear + per_pair * float(dense.sum()), useful + float(again))


@dataclass(frozen=True)
class FlopCounter:
    """Counts the work of steps of one training."""

    model: ModelFacts
    recompute: Recompute
    block_size: int

    def count(self, plan: StepPlan, top_k: IntArray, *, num_target_tokens: int) -> dict[str, float]:
        """Returns the three counts of a step in TFLOP, for its row of metrics; top_k is [L, N]."""
        work = count(
            self.model,
            plan.lengths,
            top_k,
            block_size=self.block_size,
            num_target_tokens=num_target_tokens,
            recomputed=self._recomputed(plan),
            attention_again=self.recompute.mode == "full",
        )
        return {f"{name}_tflop": value / 1e12 for name, value in asdict(work).items()}

    def _recomputed(self, plan: StepPlan) -> FloatArray:
        again = np.zeros(len(plan.lengths))
        for micro in (m for rank in plan.batch.micro_batches for m in rank):
            members = list(micro)
            again[members] = self.recompute.applies(int(plan.lengths[members].sum()))
        return again


def model_facts(model: Any) -> ModelFacts:
    """Returns what the count needs of a causal model; norms and biases are left out."""
    config = model.config
    layers = {n: p for n, p in model.named_parameters() if p.ndim > 1 and ".layers." in n}
    trained = sum(p.numel() for p in layers.values() if p.requires_grad)
    again = sum(p.numel() for n, p in layers.items() if ".down_proj." not in n)
    heads = int(config.num_attention_heads)
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    head = int(config.vocab_size) * int(config.hidden_size)
    return ModelFacts(
        sum(p.numel() for p in layers.values()),
        trained,
        again,
        head,
        int(config.num_hidden_layers),
        heads,
        int(dim),
    )


def peak_flops(name: str) -> float | None:
    """Returns the device's peak, operations per second; None where it is not known."""
    return next((1e12 * peak for part, peak in PEAK_TFLOPS.items() if part in name), None)
