"""Writes reach.csv and the tables of reach.md: which imbalance budgets can reach at all.

``PYTHONPATH=src python docs/results/reach.py [TABLE.parquet ...]``: latency tables, else all of
config/latency; Mooncake's lengths, barrier `micro`, 48 steps of each number of ranks and global
batch; 2 minutes a table.

The bound of a step: its longest sequence at the least budgets that p allows must be done by some
rank, while the others do all the rest at the greatest budgets that p allows.
"""

import sys
from collections.abc import Iterator

import ablation_predicted
import numpy as np
import reach_page

from sbcore.config.method import WaterfillTuner
from sbcore.plan.sampling import drawn_steps
from sbcore.plan.simulate import Method, Plans, replay
from sbcore.simulate.coverage import LawfulCoverage
from sbcore.simulate.setting import Setting
from sbcore.simulate.tuning import make_law, make_tuning
from sbcore.simulate.words import VARIANTS
from sbcore.tune.coverage import budget_bounds
from sbcore.types import Barrier, FloatArray, IntArray

NUM_STEPS, WINDOW = 48, 4
RANKS_AND_BATCHES = [(ranks, batch) for ranks in (2, 4, 8) for batch in (16, 32, 64, 128)]
PAIRS = (reach_page.PLAIN, (0.2, 1), (0.1, WINDOW))
"""Bounds p, and global batches that are regrouped together."""


def main() -> None:
    """Writes all rows, then the page."""
    sources = sys.argv[1:] or ablation_predicted.known_tables()
    rows = [row for source in sources for row in rows_of(source)]
    ablation_predicted.write_rows(reach_page.ROWS, rows)
    reach_page.write()


def rows_of(source: str) -> Iterator[ablation_predicted.Row]:
    """Yields a row per number of ranks, global batch, p and look-ahead."""
    latency, block_size, name = ablation_predicted.read_source(source)
    config = ablation_predicted.CONFIG.model_copy(update={"num_steps": NUM_STEPS})
    lengths = ablation_predicted.read_length_set(
        ablation_predicted.LENGTHS, max_tokens=config.max_tokens
    ).lengths
    for ranks, batch in RANKS_AND_BATCHES:
        sys.stderr.write(f"{name}: {ranks} ranks, {batch}\n")
        plans = {look_ahead: Plans() for _, look_ahead in PAIRS}
        for p, look_ahead in PAIRS:
            ahead = config.model_copy(update={"look_ahead": look_ahead})
            setting = Setting(
                lengths, latency, name, block_size, ranks, batch, Barrier.MICRO, ahead
            )
            yield row_of(setting, plans[look_ahead], p=p)


def row_of(setting: Setting, plans: Plans, *, p: float) -> ablation_predicted.Row:
    """Returns bounds and what `sab` and `sab_waterfill` come to."""
    bounds, at_k0 = np.array(list(least_imbalances(setting, p=p))).T
    scene, sab = setting.scene(top_k=setting.config.top_k), VARIANTS["sab"].balancer
    fixed = replay(scene, Method(sab, max_sequences=0, decide=None), plans)
    tuning = make_tuning(setting, WaterfillTuner(p=p), dense=False)
    tuned = replay(scene, Method(sab, max_sequences=0, decide=tuning), plans)
    return {
        "latency": setting.latency_name,
        "num_ranks": setting.num_ranks,
        "global_batch": setting.global_batch,
        "p": p,
        "look_ahead": setting.config.look_ahead,
        "num_steps": setting.num_steps,
        "longest_binds": round(float((at_k0 > 1.0).mean()), 3),
        "least_imbalance_at_k0": round(float(at_k0.mean()), 3),
        "least_imbalance": round(float(bounds.mean()), 3),
        "steps_within_aim": round(float((bounds <= reach_page.AIM).mean()), 3),
        "sab_imbalance": round(float(fixed.imbalance.mean()), 3),
        "sab_ms": round(float(fixed.step_ms.mean()), 1),
        "waterfill_imbalance": round(float(tuned.imbalance.mean()), 3),
        "waterfill_waiting_pct": round(100 * tuned.bubble, 1),
        "waterfill_ms": round(float(tuned.step_ms.mean()), 1),
        "coverage_delta": round(tuning.coverage_delta, 2) + 0.0,
    }


def least_imbalances(setting: Setting, *, p: float) -> Iterator[tuple[float, float]]:
    """Yields for each step the least imbalance that p allows, and the least at k0."""
    law, k0 = make_law(setting), setting.config.top_k
    batches = drawn_steps(setting.lengths, setting.sampling, seed=setting.config.seed)
    for step, chosen in enumerate(batches):
        lengths = setting.lengths[chosen]
        least, most = times_within(setting, lengths, law, p=p, draw=step)
        fixed = setting.latency.predict(lengths, np.full(len(lengths), k0))
        yield least_imbalance(setting, least, most), least_imbalance(setting, fixed, fixed)


def times_within(
    setting: Setting, lengths: IntArray, law: LawfulCoverage, *, p: float, draw: int
) -> FloatArray:
    """Returns the least and the greatest time of every sequence that p allows, [2, N]."""
    curves = law.curves(lengths, draw=setting.config.num_learning_steps + draw)
    bounds = budget_bounds(curves, law.ladder, top_k=setting.config.top_k, p=p)
    return np.array([setting.latency.predict(lengths, top_k) for top_k in bounds])


def least_imbalance(setting: Setting, least: FloatArray, most: FloatArray) -> float:
    """Returns max / mean of rank time where the longest is cut and all others are raised.

    With one micro-batch for each rank. The mean is greatest where as many ranks as possible take
    as long as the slowest, and the rest wait at the floor.
    """
    latency, ranks = setting.latency, setting.num_ranks
    longest = int(least.argmax())
    slowest = max(float(least[longest]), latency.floor_ms)
    work = float(most.sum() - most[longest])
    full, rest = divmod(min(work, (ranks - 1) * slowest), slowest)
    waiting = ranks - 1 - int(full)
    others = full * slowest + (max(rest, latency.floor_ms) if waiting else 0.0)
    others += max(waiting - 1, 0) * latency.floor_ms
    constant = latency.constant_ms
    return (slowest + constant) / ((slowest + others) / ranks + constant)


if __name__ == "__main__":
    main()
