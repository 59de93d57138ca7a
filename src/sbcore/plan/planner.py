"""The stage `plan`: every global batch of a variant, laid out by its balancer.

A pure function of the data set's lengths, the latency table, the seed and the topology, so any
rank, and any number of ranks after a restart, can recompute it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sbcore.artifacts import digest_file, write_json
from sbcore.config.method import BalancerConfig
from sbcore.config.stages import PlanStage
from sbcore.errors import SparseBalanceError
from sbcore.latency.model import TableLatencyModel
from sbcore.latency.table import profile_files
from sbcore.plan.balancers import load_balancer
from sbcore.plan.cost import BudgetCost, KnownLengthsCost
from sbcore.plan.file import PLAN, SUMMARY, PlanRows
from sbcore.plan.index import Samples, read_samples
from sbcore.plan.memory import capped_tokens
from sbcore.plan.own_cost import own_cost, read_formula
from sbcore.plan.sampling import describe_sampling, drawn_steps, sampling_digest, step_seed
from sbcore.plan.speed import quantised
from sbcore.plan.summary import StepSummary, summarise_plan, summarise_step, to_rows
from sbcore.types import CostModel, IntArray, Topology


def plan_variant(config: PlanStage, *, index: Path, latency: Path, out: Path) -> dict[str, Any]:
    """Writes ``plan.parquet`` and ``summary.json`` into out; returns the summary.

    Raises:
        SparseBalanceError: Something is wrong with the index or the latency profile, or a
            sequence is longer than the table may be stretched or than memory holds.
    """
    started = time.perf_counter()
    samples = read_samples(index)
    model = TableLatencyModel.read(latency, block_size=config.block_size)
    top_k = _top_k(config, samples)
    num_extrapolated = _check_reach(config, samples, model, top_k=top_k)
    measured = BudgetCost(model, top_k)
    own = own_cost(config.balancer, measured, formula=lambda: read_formula(latency))
    job = _Job(
        balancer=config.balancer,
        topology=make_topology(config, samples, model),
        cost=KnownLengthsCost(measured, samples.lengths),
        own_cost=KnownLengthsCost(own, samples.lengths),
        seed=config.seed,
    )
    batches = list(drawn_steps(samples.lengths, config.sampling, seed=config.seed))
    rows, summaries = _lay_out(job, samples, batches)
    summary = {
        "overall": summarise_plan(summaries)
        | {
            "extrapolated": num_extrapolated,
            "balancer": config.balancer.kind,
            "barrier": config.barrier.value,
            "num_ranks": config.num_ranks,
            "num_stages": config.num_stages,
            "max_tokens": job.topology.max_tokens,
            "sampling": describe_sampling(config.sampling),
            "variant": config.variant,
            "seconds": round(time.perf_counter() - started, 3),
        },
        "steps": to_rows(summaries),
    }
    order = sampling_digest(samples.sample_ids[chosen] for chosen in batches)
    made_for = _metadata(config, index=index, table=profile_files(latency)[0])
    rows.write(
        out / PLAN, made_for | {"order_digest": order, "max_tokens": str(job.topology.max_tokens)}
    )
    write_json(out / SUMMARY, summary)
    return summary


@dataclass(frozen=True, slots=True)
class _Job:
    """What every step of a plan is made by, and with `cost` judged by."""

    balancer: BalancerConfig
    topology: Topology
    cost: CostModel
    own_cost: CostModel
    seed: int


def make_topology(config: PlanStage, samples: Samples, latency: TableLatencyModel) -> Topology:
    """Returns the machine that a stage plans for; memory lowers its token cap."""
    max_tokens = config.max_tokens
    if config.max_memory_gib is not None:
        max_tokens = capped_tokens(
            latency, samples, max_tokens=max_tokens, max_memory_gib=config.max_memory_gib
        )
    return Topology(
        config.num_ranks,
        config.barrier,
        max_tokens,
        config.max_sequences,
        num_stages=config.num_stages,
        speed_factors=quantised(config.speed_factors),
    )


def _lay_out(
    job: _Job, samples: Samples, batches: Sequence[IntArray]
) -> tuple[PlanRows, list[StepSummary]]:
    balancer, topology, cost = load_balancer(job.balancer.kind), job.topology, job.cost
    rows, summaries = PlanRows(), []
    for step, chosen in enumerate(batches):
        lengths = samples.lengths[chosen]
        seed = step_seed(job.seed, step)
        batch = balancer(lengths, topology, cost=job.own_cost, seed=seed, config=job.balancer)
        summaries.append(summarise_step(step, batch, lengths, topology=topology, cost=cost))
        ids, times = samples.sample_ids[chosen], cost.sequence_ms(lengths)
        rows.add(step, batch, ids=ids, lengths=lengths, times=times)
    return rows, summaries


def _top_k(config: PlanStage, samples: Samples) -> int:
    """Returns the budget that costs are predicted at; dense attention takes all blocks."""
    if config.attention == "sparse":
        return config.top_k
    return -(-int(samples.lengths.max()) // config.block_size)


def _check_reach(
    config: PlanStage, samples: Samples, model: TableLatencyModel, *, top_k: int
) -> int:
    """Returns how many sequences the table does not reach; refuses those too far beyond it."""
    longest, factor = int(samples.lengths.max()), config.max_extrapolation
    if longest > model.longest * factor:
        raise SparseBalanceError(
            f"latency.lengths = ..., {model.longest}: the longest sample has {longest} tokens, "
            f"beyond latency.max_extrapolation = {factor:g} times that. "
            f"add {longest} to latency.lengths or raise latency.max_extrapolation."
        )
    budgets = np.full_like(samples.lengths, top_k)
    return int(model.extrapolates(samples.lengths, budgets).sum())


def _metadata(config: PlanStage, *, index: Path, table: Path) -> dict[str, str]:
    return {
        "index_digest": digest_file(index),
        "latency_digest": digest_file(table),
        "variant": config.variant,
        "block_size": str(config.block_size),
        "num_ranks": str(config.num_ranks),
        "barrier": config.barrier.value,
    }
