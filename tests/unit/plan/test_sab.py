"""What the balancer `sab` looks at, against every placement that it is made of."""

from dataclasses import replace

import numpy as np
import pytest

from sbcore.config.method import SabBalancer
from sbcore.latency.packs import EVEN, WorkShares
from sbcore.plan.balancers.random import random_layout
from sbcore.plan.balancers.sab import _greedy_layouts, plan
from sbcore.plan.caps import min_micro_batches
from sbcore.plan.cost import KnownTimesCost
from sbcore.plan.layout import Placement, layout_cost, with_fewest
from sbcore.plan.placement import by_levels, onto_ranks, tightly
from sbcore.plan.workload import Workload
from sbcore.types import Barrier, Topology

STEP, MICRO, PIPELINE = Barrier


def uneven_batch(seed: int, topology: Topology, shares: WorkShares) -> Workload:
    """Returns sixteen sequences of which few are long, some of them dear for their length."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(3.0, 0.9, 16), 1, 100).astype(int).tolist()
    costs = (np.array(lengths) * rng.uniform(0.5, 2.0, 16)).tolist()
    return Workload(lengths, costs, 5.0, 1.0, shares, topology)


@pytest.mark.parametrize(
    ("place", "barrier", "shares"),
    [(onto_ranks, STEP, EVEN), (by_levels, MICRO, EVEN), (tightly, STEP, EVEN)]
    + [(place, MICRO, WorkShares(50, 0.5, 1.0)) for place in (onto_ranks, by_levels)],
)
def test_sab_looks_at_every_placement(
    place: Placement, barrier: Barrier, shares: WorkShares
) -> None:
    """Also in micro-batches that are not recomputed, and at tight ones where they are fewer."""
    looked_at = 0
    for seed in range(40):
        workload = uneven_batch(seed, Topology(2, barrier, 100, 0), shares)
        fewest = min_micro_batches(workload.lengths, workload.topology)
        if place is tightly and with_fewest(workload, onto_ranks)[1] == fewest:
            continue
        looked_at += 1
        tried = [layout_cost(workload, w) for w in _greedy_layouts(workload, enough=0.0, seed=0)]
        cap = 100 if shares.even else 50
        capped = replace(workload, topology=replace(workload.topology, max_tokens=cap))
        assert min(tried) <= layout_cost(workload, with_fewest(capped, place)[0]) * (1 + 1e-9)
    assert looked_at >= 2


@pytest.mark.parametrize("barrier", [STEP, MICRO])
def test_sab_looks_at_one_micro_batch_more_and_at_the_random_order(barrier: Barrier) -> None:
    for seed in range(40):
        workload = uneven_batch(seed, Topology(2, barrier, 100, 0), EVEN)
        tried = [layout_cost(workload, w) for w in _greedy_layouts(workload, enough=0.0, seed=0)]
        more = onto_ranks(workload, with_fewest(workload, onto_ranks)[1] + 1)
        dealt = random_layout(workload.lengths, workload.topology, seed=0)
        assert more is not None
        assert layout_cost(workload, more) in tried
        assert layout_cost(workload, dealt) in tried


def test_sab_shortens_pipelines_by_their_makespan() -> None:
    """Not by their ranks' sums, which greedy layouts have even already."""
    shorter = []
    for seed in range(10):
        workload = uneven_batch(seed, Topology(2, PIPELINE, 10_000, 0, 2), EVEN)
        greedy = min(
            layout_cost(workload, w) for w in _greedy_layouts(workload, enough=1e9, seed=0)
        )
        config = SabBalancer(restarts=0)
        planned = plan(
            np.array(workload.lengths),
            workload.topology,
            cost=KnownTimesCost(np.array(workload.costs), 5.0, 1.0, EVEN, None),
            seed=0,
            config=config,
        )
        layout = [[list(pack) for pack in rank] for rank in planned.micro_batches]
        shorter.append(1 - layout_cost(workload, layout) / greedy)
    assert np.mean(shorter) > 0.01
