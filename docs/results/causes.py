"""Prints what `sab` gains over `length`, and how much of it other parts of it gain alone.

Simulated, as balancers.py is; 30 steps each, a minute:
``PYTHONPATH=src python docs/results/causes.py NAME=FILE.csv ...``
"""

import sys
from pathlib import Path

import balancers

from sbcore.config.method import BalancerConfig, KarmarkarKarpBalancer, LengthBalancer, SabBalancer
from sbcore.plan.balancers import load_balancer
from sbcore.plan.cost import BudgetCost, TokenCost
from sbcore.plan.objective import micro_batch_ms, step_ms
from sbcore.plan.sampling import step_seed, steps
from sbcore.simulate.setting import Setting
from sbcore.types import CostModel

NUM_STEPS = 30
SIZES = ((4, 16), (8, 64), (64, 256))


def main() -> None:
    """Writes a line per situation: percent faster than `length`."""
    sets = {name: Path(file) for name, file in (word.split("=", 1) for word in sys.argv[1:])}
    for data, setting in balancers.settings(sets):
        if (setting.num_ranks, setting.global_batch) in SIZES:
            where = f"{data} {setting.barrier} {setting.num_ranks} {setting.global_batch}"
            gains = (f"{name} {gain:+.1f}" for name, gain in gains_pct(setting).items())
            sys.stdout.write(f"{where}: {', '.join(gains)}\n")


def gains_pct(setting: Setting) -> dict[str, float]:
    """Returns how much faster than `length` each is over all steps, percent."""
    cost = BudgetCost(setting.latency, balancers.CONFIG.top_k)
    length_ms = total_ms(setting, LengthBalancer(), planned_by=cost)
    parts: dict[str, tuple[BalancerConfig, CostModel]] = {
        "karmarkar_karp on tokens": (KarmarkarKarpBalancer(), TokenCost()),
        "karmarkar_karp": (KarmarkarKarpBalancer(), cost),
        "sab on tokens": (SabBalancer(), TokenCost()),
        "sab without search": (SabBalancer(local_search_rounds=0), cost),
        "sab": (SabBalancer(), cost),
    }
    return {
        name: 100 * (length_ms / total_ms(setting, balancer, planned_by=known) - 1)
        for name, (balancer, known) in parts.items()
    }


def total_ms(setting: Setting, balancer: BalancerConfig, *, planned_by: CostModel) -> float:
    """Returns the predicted time of all steps, whatever the plan was made by."""
    scene = setting.scene(top_k=balancers.CONFIG.top_k)
    cost = BudgetCost(setting.latency, scene.top_k)
    plan, total = load_balancer(balancer.kind), 0.0
    batches = list(steps(len(setting.lengths), scene.sampling, seed=scene.seed))
    for number, chosen in enumerate(batches[:NUM_STEPS]):
        lengths, seed = setting.lengths[chosen], step_seed(scene.seed, number)
        batch = plan(lengths, scene.topology, cost=planned_by, seed=seed, config=balancer)
        times = micro_batch_ms(batch, lengths, cost)
        total += step_ms(times, scene.topology.barrier, num_stages=scene.topology.num_stages)
    return total


if __name__ == "__main__":
    main()
