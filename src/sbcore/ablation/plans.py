"""Plans made on the spot, by the planner's own pieces, for trainers that read no file."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np

from sbcore.artifacts import digest_text
from sbcore.config.stages import PlanStage
from sbcore.latency.model import TableLatencyModel
from sbcore.plan.balancers import load_balancer
from sbcore.plan.cost import BudgetCost
from sbcore.plan.index import Samples
from sbcore.plan.own_cost import own_cost, read_formula
from sbcore.plan.planner import make_topology
from sbcore.plan.read import StepPlan
from sbcore.plan.sampling import drawn_steps, sampling_digest, step_seed
from sbcore.types import BatchPlan, IntArray, Topology


class PlannedSteps:
    """The plan of a variant; offers what a `PlanFile` does. Sample ids are places in lengths.

    ``profile`` is where the latency table was read from: some balancers take its formula.
    """

    def __init__(
        self, stage: PlanStage, lengths: IntArray, latency: TableLatencyModel, *, profile: Path
    ) -> None:
        self.variant, self.num_ranks = stage.variant, stage.num_ranks
        self.barrier, self.block_size = stage.barrier, stage.block_size
        samples = Samples(np.arange(len(lengths)), lengths)
        topology = make_topology(stage, samples, latency)
        self.max_tokens = topology.max_tokens
        self._steps = _lay_out(stage, topology, lengths, latency, profile)

    @property
    def num_steps(self) -> int:
        """Steps of the training."""
        return len(self._steps)

    @cached_property
    def digest(self) -> str:
        """The sha256 of all layouts."""
        layouts = [[s.sample_ids.tolist(), s.batch.micro_batches] for s in self._steps]
        return digest_text(json.dumps(layouts))

    @cached_property
    def order_digest(self) -> str:
        """The digest of the sequence of global batches, whatever their layout."""
        return sampling_digest(step.sample_ids for step in self._steps)

    def step(self, number: int) -> StepPlan:
        """Returns a step's sequences, in the order of execution, and their layout.

        Raises:
            IndexError: There is no such step.
        """
        if not 0 <= number < self.num_steps:
            raise IndexError(f"step = {number}: the plan has {self.num_steps} steps")
        return self._steps[number]


def _lay_out(
    stage: PlanStage,
    topology: Topology,
    lengths: IntArray,
    latency: TableLatencyModel,
    profile: Path,
) -> list[StepPlan]:
    dense_top_k = -(-int(lengths.max()) // stage.block_size)
    top_k = stage.top_k if stage.attention == "sparse" else dense_top_k
    measured = BudgetCost(latency, top_k)
    cost = own_cost(stage.balancer, measured, formula=lambda: read_formula(profile))
    balancer = load_balancer(stage.balancer.kind)
    plans = []
    for number, chosen in enumerate(drawn_steps(lengths, stage.sampling, seed=stage.seed)):
        seed = step_seed(stage.seed, number)
        batch = balancer(lengths[chosen], topology, cost=cost, seed=seed, config=stage.balancer)
        plans.append(in_order_of_execution(batch, chosen, lengths))
    return plans


def in_order_of_execution(batch: BatchPlan, chosen: IntArray, lengths: IntArray) -> StepPlan:
    """Returns the step with its sequences renumbered rank by rank, as a plan's file has them."""
    order = [i for rank in batch.micro_batches for pack in rank for i in pack]
    place = {sequence: at for at, sequence in enumerate(order)}
    renumbered = tuple(
        tuple(tuple(place[i] for i in pack) for pack in rank) for rank in batch.micro_batches
    )
    sample_ids = chosen[order]
    return StepPlan(sample_ids, lengths[sample_ids], BatchPlan(renumbered))
