"""Prints whether any plan of a pipeline step is faster than `sab` by more than 2 %.

All ways to place the sequences (`plan/pipeline_proof.py`), for the steps where the gap to the bound
is larger than that; those that would take too many are left open. Simulated, as balancers.py is;
some minutes: ``PYTHONPATH=src python docs/results/exact_pipeline.py NAME=FILE.csv ...``
"""

import sys
from pathlib import Path

import balancers
import numpy as np

from sbcore.plan.cost import BudgetCost
from sbcore.plan.pipeline_proof import is_possible
from sbcore.plan.sampling import steps
from sbcore.plan.simulate import Method, replay
from sbcore.plan.workload import least_workload
from sbcore.simulate.setting import Setting
from sbcore.types import Barrier

OPEN = 0.02
"""Gap that is looked into, and by which a plan would have to be faster."""
MAX_LAYOUTS = 20_000
"""Partial layouts after which a step counts as open."""


def main() -> None:
    """Writes a line per length set and number of ranks."""
    sets = {name: Path(file) for name, file in (word.split("=", 1) for word in sys.argv[1:])}
    for data, setting in balancers.settings(sets):
        if setting.barrier is Barrier.PIPELINE:
            sys.stdout.write(
                f"{data}, {setting.num_ranks} ranks, {setting.global_batch}: {line(setting)}\n"
            )
            sys.stdout.flush()


def line(setting: Setting) -> str:
    """Returns how many steps are above the bound, and what is proved of them."""
    scene = setting.scene(top_k=balancers.CONFIG.top_k)
    done = replay(scene, Method(balancers.BALANCERS["sab"], max_sequences=0, decide=None))
    cost = BudgetCost(setting.latency, balancers.CONFIG.top_k)
    asked = np.flatnonzero(done.step_ms > done.bound_ms * (1 + OPEN))
    batches = list(steps(len(setting.lengths), scene.sampling, seed=scene.seed))
    answers = []
    for step in asked.tolist():
        workload = least_workload(setting.lengths[batches[step]], scene.topology, cost)
        limit_ms = float(done.step_ms[step]) / (1 + OPEN)
        answers.append(is_possible(workload, limit_ms, max_layouts=MAX_LAYOUTS))
    return (
        f"{len(asked)} of {len(done.step_ms)} steps above the bound by over {OPEN:.0%}; of these "
        f"proved within {OPEN:.0%} of the optimum: {answers.count(False)}, refuted: "
        f"{answers.count(True)}, open: {answers.count(None)}"
    )


if __name__ == "__main__":
    main()
