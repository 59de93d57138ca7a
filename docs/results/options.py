"""Prints what options of `sab` bring: look-ahead, new plans in training, knowing a slow rank.

Simulated, as balancers.py is; 40 steps each, two minutes:
``PYTHONPATH=src python docs/results/options.py NAME=FILE.csv ...``
"""

import sys
from dataclasses import replace
from pathlib import Path

import balancers
import numpy as np

from sbcore.config.method import AnchorTuner, SabBalancer
from sbcore.plan.balancers import load_balancer
from sbcore.plan.cost import BudgetCost
from sbcore.plan.objective import micro_batch_ms, slowed, step_ms
from sbcore.plan.sampling import drawn_steps, step_seed
from sbcore.plan.simulate import Method, Scene, replay
from sbcore.simulate.setting import Setting
from sbcore.simulate.tuning import make_tuning
from sbcore.types import Barrier

NUM_STEPS, WINDOW, SLOWER = 40, 4, 1.25
SIZES = ((4, 16), (8, 16), (8, 64))


def main() -> None:
    """Writes a line per situation."""
    sets = {name: Path(file) for name, file in (word.split("=", 1) for word in sys.argv[1:])}
    for data, setting in balancers.settings(sets):
        size = (setting.num_ranks, setting.global_batch)
        if setting.barrier is not Barrier.PIPELINE and size in SIZES:
            sys.stdout.write(f"{data} {setting.barrier} {size[0]} {size[1]}: {line(setting)}\n")


def line(setting: Setting) -> str:
    """Returns percent faster by each option, and what look-ahead does to tokens."""
    steps = min(NUM_STEPS, setting.num_steps) // WINDOW * WINDOW
    setting = replace(setting, config=setting.config.model_copy(update={"num_steps": steps}))
    ahead = replace(setting, config=setting.config.model_copy(update={"look_ahead": WINDOW}))
    gain = 100 * (total_ms(setting) / total_ms(ahead) - 1)
    spread = [f"{tokens_cv(s):.2f}" for s in (setting, ahead)]
    tuned = 100 * (tuned_ms(setting, online=False) / tuned_ms(setting, online=True) - 1)
    return (
        f"look-ahead {gain:+.1f} (cv of tokens {spread[0]} -> {spread[1]}), "
        f"online with dst {tuned:+.1f}, slow rank known {known_pct(setting):+.1f}"
    )


def scene_of(setting: Setting) -> Scene:
    """Returns the scene at the fixed budget."""
    return setting.scene(top_k=setting.config.top_k)


def total_ms(setting: Setting) -> float:
    """Returns the predicted time of all steps by `sab`."""
    done = replay(scene_of(setting), Method(SabBalancer(), max_sequences=0, decide=None))
    return float(done.step_ms.sum())


def tuned_ms(setting: Setting, *, online: bool) -> float:
    """Returns the time of all steps with the anchor tuner."""
    tuning = make_tuning(setting, AnchorTuner(), dense=False)
    method = Method(SabBalancer(online=online), max_sequences=0, decide=tuning)
    return float(replay(scene_of(setting), method).step_ms.sum())


def tokens_cv(setting: Setting) -> float:
    """Returns the standard deviation of a global batch's tokens over their mean."""
    batches = drawn_steps(setting.lengths, setting.sampling, seed=setting.config.seed)
    tokens = np.array([setting.lengths[chosen].sum() for chosen in batches])
    return float(tokens.std() / tokens.mean())


def known_pct(setting: Setting) -> float:
    """Returns how much faster plans are that know that the last rank is slower, percent."""
    slow = (*[1.0] * (setting.num_ranks - 1), SLOWER)
    scene = scene_of(replace(setting, speed_factors=slow))
    cost, config = BudgetCost(setting.latency, scene.top_k), SabBalancer()
    plan, totals = load_balancer("sab"), []
    for planned in (scene_of(setting).topology, scene.topology):
        total = 0.0
        batches = drawn_steps(setting.lengths, scene.sampling, seed=scene.seed)
        for number, chosen in enumerate(batches):
            lengths, seed = setting.lengths[chosen], step_seed(scene.seed, number)
            batch = plan(lengths, planned, cost=cost, seed=seed, config=config)
            times = slowed(micro_batch_ms(batch, lengths, cost), scene.topology)
            total += step_ms(times, setting.barrier)
        totals.append(total)
    return 100 * (totals[0] / totals[1] - 1)


if __name__ == "__main__":
    main()
