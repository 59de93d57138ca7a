"""Prints whether `sab` is the exact optimum under barrier `micro` where its gap is above 2 %.

Token caps and the host floor are kept. A mixed-integer program for each number of micro-batches,
from the fewest to two above; each one more costs a floor. Simulated, as balancers.py
is; needs scipy (mlflow brings it). For 16 sequences on 4 ranks; ten seconds:
``PYTHONPATH=src python docs/results/exact_micro.py NAME=FILE.csv ...``
"""

import sys
from pathlib import Path

import balancers
import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from sbcore.plan.caps import min_micro_batches
from sbcore.plan.cost import BudgetCost
from sbcore.plan.sampling import steps
from sbcore.plan.simulate import Method, replay
from sbcore.simulate.setting import Setting
from sbcore.types import Barrier, IntArray

OPEN, MORE, SECONDS = 0.02, 2, 100
"""Gap that is looked into, micro-batches above the fewest, and the time for each program."""


def main() -> None:
    """Writes a line per step."""
    sets = {name: Path(file) for name, file in (word.split("=", 1) for word in sys.argv[1:])}
    for data, setting in balancers.settings(sets):
        size = (setting.num_ranks, setting.global_batch)
        if setting.barrier is Barrier.MICRO and size == (4, 16):
            for line in lines(setting):
                sys.stdout.write(f"{data}, {setting.num_ranks} ranks, {line}\n")


def lines(setting: Setting) -> list[str]:
    """Returns a line for every step in question where no sequence binds."""
    scene = setting.scene(top_k=balancers.CONFIG.top_k)
    done = replay(scene, Method(balancers.BALANCERS["sab"], max_sequences=0, decide=None))
    binds = balancers.longest_binds(setting)
    batches = list(steps(len(setting.lengths), scene.sampling, seed=scene.seed))
    asked = np.flatnonzero((done.step_ms > done.bound_ms * (1 + OPEN)) & (binds == 0))
    found = []
    for step in asked.tolist():
        lengths = setting.lengths[batches[step]]
        fewest = min_micro_batches(lengths.tolist(), scene.topology)
        least = min(least_ms(setting, lengths, fewest + more) for more in range(MORE + 1))
        sab, bound = done.step_ms[step], done.bound_ms[step]
        found.append(
            f"step {step}: sab {sab:.1f} ms, {100 * (sab / bound - 1):.1f} % above the bound; "
            f"no plan is below {least:.1f} ms: sab is {100 * (sab / least - 1):.2f} % above"
        )
    return found


def least_ms(setting: Setting, lengths: IntArray, num_micro: int) -> float:
    """Returns what no plan of so many micro-batches is below, constants included.

    Variables: whether sequence n is in slot s (N * S), then the time of each micro-step (M).
    """
    num, slots = len(lengths), setting.num_ranks * num_micro
    costs = BudgetCost(setting.latency, balancers.CONFIG.top_k).sequence_ms(lengths)
    once = np.kron(np.eye(num), np.ones(slots))
    work = np.kron(costs, np.eye(slots))
    tokens = np.kron(lengths, np.eye(slots))
    waits = np.kron(np.eye(num_micro), np.ones((setting.num_ranks, 1)))
    none = np.zeros
    falls = np.eye(num_micro)[:-1] - np.eye(num_micro)[1:]
    cap = np.maximum(setting.config.max_tokens, lengths.max())
    width = num * slots
    program = milp(
        np.concatenate([none(width), np.ones(num_micro)]),
        constraints=[
            LinearConstraint(np.hstack([once, none((num, num_micro))]), 1, 1),
            LinearConstraint(np.hstack([work, -waits]), -np.inf, 0),
            LinearConstraint(np.hstack([tokens, none((slots, num_micro))]), -np.inf, cap),
            LinearConstraint(np.hstack([none((num_micro - 1, width)), falls]), 0, np.inf),
        ][: 4 if num_micro > 1 else 3],
        bounds=Bounds(
            np.concatenate([none(width), np.full(num_micro, setting.latency.floor_ms)]),
            np.concatenate([np.ones(width), np.full(num_micro, np.inf)]),
        ),
        integrality=np.concatenate([np.ones(width), none(num_micro)]),
        options={"time_limit": SECONDS, "mip_rel_gap": 1e-4},
    )
    if program.status == 2:  # infeasible: the cap leaves no room
        return float("inf")
    return float(program.mip_dual_bound) + num_micro * setting.latency.constant_ms


if __name__ == "__main__":
    main()
