"""Prints how far `sab` is from the exact optimum of `step`, where that can be found.

The bound of a plan may be out of reach; branch and bound over all assignments says whether plan or
bound leaves the gap. Simulated, as balancers.py is. Token caps are left out, so that what is called
exact is never above the real optimum; nor is it above that of `micro`, where ranks wait more often.
For 16 sequences on 4 or 8 ranks, steps above the bound by more than 2 % counted; some minutes:
``PYTHONPATH=src python docs/results/exact.py NAME=FILE.csv ...``
"""

import sys
from pathlib import Path

import balancers
import numpy as np

from sbcore.plan.cost import BudgetCost
from sbcore.plan.sampling import steps
from sbcore.plan.simulate import Method, replay
from sbcore.simulate.setting import Setting
from sbcore.types import Barrier, FloatArray

NUM_STEPS = 100
OPEN = 2.0
"""Percent above a bound that are looked into."""
MAX_NODES = 200_000
"""Nodes of the search after which a step counts as not solved."""


def main() -> None:
    """Writes a line per length set and number of ranks."""
    sets = {name: Path(file) for name, file in (word.split("=", 1) for word in sys.argv[1:])}
    for data, setting in balancers.settings(sets):
        small = setting.global_batch == 16 and setting.num_ranks in (4, 8)
        if setting.barrier is not Barrier.PIPELINE and small:
            where = f"{data}, {setting.barrier}, {setting.num_ranks} ranks"
            sys.stdout.write(f"{where}: {line(setting)}\n")


def line(setting: Setting) -> str:
    """Returns gaps of sab to the exact optimum, and of that to the bound, percent."""
    scene = setting.scene(top_k=balancers.CONFIG.top_k)
    done = replay(scene, Method(balancers.BALANCERS["sab"], max_sequences=0, decide=None))
    cost = BudgetCost(setting.latency, balancers.CONFIG.top_k)
    batches = list(steps(len(setting.lengths), scene.sampling, seed=scene.seed))[:NUM_STEPS]
    found = [
        optimum(cost.sequence_ms(setting.lengths[chosen]), setting.num_ranks, float(sab))
        for chosen, sab in zip(batches, done.step_ms, strict=False)
    ]
    solved = np.array([ms is not None for ms in found])
    exact = np.array([ms or 0.0 for ms in found])[solved]
    sab, bound = done.step_ms[: len(found)][solved], done.bound_ms[: len(found)][solved]
    plan_gap, bound_gap = 100 * (sab / exact - 1), 100 * (exact / bound - 1)
    return (
        f"{solved.sum()} of {len(found)} steps solved; sab above exact: mean {plan_gap.mean():.2f} "
        f"p95 {np.quantile(plan_gap, 0.95):.2f}; exact above bound: mean {bound_gap.mean():.2f} "
        f"p95 {np.quantile(bound_gap, 0.95):.2f}; above the bound by over {OPEN:g}: "
        f"{(sab > bound * (1 + OPEN / 100)).sum()}, of these above exact by over {OPEN:g}: "
        f"{(sab > np.maximum(exact, bound) * (1 + OPEN / 100)).sum()}"
    )


def optimum(times: FloatArray, num_ranks: int, best: float) -> float | None:
    """Returns the least maximal load of the ranks, at most `best`; None if the search is cut."""
    order = np.sort(times)[::-1].tolist()
    least = max(order[0], sum(order) / num_ranks)
    loads, nodes = [0.0] * num_ranks, 0

    def place(at: int) -> None:
        nonlocal best, nodes
        nodes += 1
        if nodes > MAX_NODES or best <= least * (1 + 1e-9):
            return
        if at == len(order):
            best = max(loads)
            return
        for load in sorted(set(loads)):
            if load + order[at] >= best * (1 - 1e-9):
                return
            rank = loads.index(load)
            loads[rank] = load + order[at]
            place(at + 1)
            loads[rank] = load

    place(0)
    return best if nodes <= MAX_NODES else None


if __name__ == "__main__":
    main()
