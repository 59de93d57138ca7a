"""The host floor in the real loop: what a short micro-batch costs however little it computes."""

import numpy as np

from sbcore.ablation.rounds import StepTrainer
from sbcore.config.stages import PlanStage
from sbcore.plan.read import StepPlan
from sbcore.types import BatchPlan, IntArray

SHORT_TOKENS = 2048
"""Tokens of a short micro-batch, one sequence: far below what keeps a GPU busy."""

_FEW, _MANY, _REPEATS, _WARMUP = 2, 8, 3, 1


class ShortSteps:
    """A plan of steps of few and of many equal micro-batches in turn; offers what a PlanFile does.

    Between two such steps everything is equal but their number, so the difference is the price of
    a micro-batch, update and reports left out.
    """

    variant = "floor"
    digest = order_digest = variant

    def __init__(self, lengths: IntArray, stage: PlanStage) -> None:
        self.num_ranks, self.barrier = stage.num_ranks, stage.barrier
        self.block_size, self._lengths = stage.block_size, lengths
        self.max_tokens = stage.max_tokens
        self.counts = [_FEW, _MANY] * (_WARMUP + _REPEATS)

    @property
    def num_steps(self) -> int:
        """Steps of the plan."""
        return len(self.counts)

    def step(self, number: int) -> StepPlan:
        """Returns a step of one sequence per micro-batch, the same number on each rank."""
        count = self.counts[number]
        total = self.num_ranks * count
        places = [tuple((r * count + m,) for m in range(count)) for r in range(self.num_ranks)]
        samples: IntArray = np.arange(total, dtype=np.int64)
        return StepPlan(samples, self._lengths[samples], BatchPlan(tuple(places)))


def short_lengths(num_ranks: int, *, max_tokens: int) -> IntArray:
    """Returns the lengths of all short sequences that a step of `ShortSteps` may have."""
    return np.full(num_ranks * _MANY, min(SHORT_TOKENS, max_tokens), dtype=np.int64)


def measure_floor(trainer: StepTrainer, plan: ShortSteps) -> float:
    """Returns the wall time of a micro-batch of the plan, milliseconds, median of few."""
    over = [*(trainer.run_step(number) for number in range(plan.num_steps)), trainer.drain()]
    step_ms = [step.row["step_ms"] for step in over if step is not None]
    few, many = np.array(step_ms[2 * _WARMUP :]).reshape(-1, 2).T
    return float(np.median((many - few) / (_MANY - _FEW)))
