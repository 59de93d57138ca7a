"""Lays out one global batch without the pipeline: lengths in, which rank computes what out.

    python examples/plan_a_batch.py 65000 30000 9000 8000 4000 2000

Costs come from a formula here. With a measured table it is `TableLatencyModel.read(folder, ...)`.
"""

import sys

import numpy as np

from sbcore.config.method import LengthBalancer, RandomBalancer, SabBalancer
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.plan.balancers import load_balancer
from sbcore.plan.bounds import lower_bound
from sbcore.plan.cost import BudgetCost
from sbcore.plan.objective import imbalance, micro_batch_ms, step_ms
from sbcore.plan.workload import make_workload
from sbcore.types import Barrier, Topology

LENGTHS = [30000, 24000, 20000, 16000, 9000, 8000, 8000, 6000, 4000, 4000, 2000, 1000, 600]
TOPOLOGY = Topology(num_ranks=4, barrier=Barrier.STEP, max_tokens=65536, max_sequences=0)
LATENCY = AnalyticLatencyModel(
    block_size=256,
    num_layers=24,
    floor_ms=100.0,
    constant_ms=5.0,
    ms_per_token=4e-3,
    coefficients=np.array([0.05, 1e-4, 4e-9, 2e-9]),  # per layer: call, token, pair, score
)
COST = BudgetCost(LATENCY, top_k=32)


def main(lengths: list[int]) -> None:
    """Prints what each balancer promises, and the best plan."""
    batch = np.array(lengths, dtype=np.int64)
    bound = lower_bound(make_workload(batch, TOPOLOGY, COST))
    print(f"{len(lengths)} sequences, {TOPOLOGY.num_ranks} ranks; no plan beats {bound:.0f} ms")
    for config in (RandomBalancer(), LengthBalancer(), SabBalancer()):
        plan = load_balancer(config.kind)(batch, TOPOLOGY, cost=COST, seed=0, config=config)
        times = micro_batch_ms(plan, batch, COST)
        step, uneven = step_ms(times, TOPOLOGY.barrier), imbalance(times, TOPOLOGY.barrier)
        print(f"{config.kind:>8}: {step:5.0f} ms, imbalance {uneven:.2f}")
    for rank, micro_batches in enumerate(plan.micro_batches):
        print(f"rank {rank}: {[[lengths[i] for i in pack] for pack in micro_batches]}")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or LENGTHS)
