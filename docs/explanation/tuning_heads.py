"""What budgets of their own for query heads would add, simulated; prints a Markdown table.

    PYTHONPATH=src python docs/explanation/tuning_heads.py

Lengths, times and law are those of tuning_simulation.py, with alpha different by head too
(`spread`, its standard deviation within a layer). Waterfill decides once with a budget for each
layer, on curves that are means over heads, and once with a row for each head; both are judged by
the heads' own curves. A head takes its share of the layer's time. Takes a minute.
"""

import sys
import time
from dataclasses import replace

import numpy as np
from tuning_simulation import (
    BLOCK_SIZE,
    LADDER,
    LATENCY,
    NUM_LAYERS,
    NUM_LEARNING_STEPS,
    NUM_STEPS,
    SEED,
    TOP_K,
    Setting,
    draw_lengths,
    observe,
    power_law_curves,
)

from sbcore.config.method import WaterfillTuner
from sbcore.tune.coverage import CoverageModel
from sbcore.tune.judged import judged_ms
from sbcore.tune.policy import Observation, make_policy
from sbcore.types import Barrier, FloatArray, IntArray

NUM_HEADS, SPREADS, P = 14, (0.0, 0.15, 0.3, 0.5), 0.1
BY_HEAD = replace(
    LATENCY, num_layers=NUM_LAYERS * NUM_HEADS, coefficients=LATENCY.coefficients / NUM_HEADS
)
"""Every head as a layer of its own."""
SITUATION = Setting(Barrier.STEP, "sab", 2, 16)


def main() -> None:
    """Prints the table: medians of decisions' times, means of the rest."""
    head = ["spread of alpha over heads", "by layer: speedup", "coverage_delta", "ms to decide"]
    head += ["by head: speedup", "coverage_delta", "ms to decide", "over by layer"]
    lines = [head, ["---"] * len(head)]
    for spread in SPREADS:
        layer, heads = (np.array(rows) for rows in simulate(spread))
        cells = [f"{spread}"]
        for rows in (layer, heads):
            speedup, delta = rows[:, 0].sum() / rows[:, 1].sum(), 100 * rows[:, 2].mean()
            cells += [f"{speedup:.3f}", f"{delta:+.2f}", f"{np.median(rows[:, 3]):.1f}"]
        lines.append([*cells, f"{layer[:, 1].sum() / heads[:, 1].sum():.3f}"])
    sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))


def simulate(spread: float) -> tuple[list[list[float]], list[list[float]]]:
    """Returns the steps decided by layer and by head: ms at k0, ms, coverage_delta, ms to decide.

    Curves are [L, heads, N, K], averages [L or L * heads, buckets, K].
    """
    rng = np.random.default_rng(SEED)
    alpha = rng.normal(1.0, 0.25, (NUM_LAYERS, 1, 1)) + rng.normal(0, spread, (1, NUM_HEADS, 1))
    alpha = alpha + rng.normal(0, spread / 2, (NUM_LAYERS, NUM_HEADS, 1))
    by_layer, by_head = (
        CoverageModel.empty(LADDER, num_layers=rows, block_size=BLOCK_SIZE, ema_decay=0.9)
        for rows in (NUM_LAYERS, NUM_LAYERS * NUM_HEADS)
    )
    steps: tuple[list[list[float]], list[list[float]]] = ([], [])
    for step in range(NUM_LEARNING_STEPS + NUM_STEPS):
        lengths = draw_lengths(rng, SITUATION.global_batch)
        shift = rng.normal(0.0, 0.15, len(lengths))
        curves = np.stack([power_law_curves(lengths, rows + shift) for rows in alpha])
        apart = curves.reshape(-1, *curves.shape[2:])
        if step >= NUM_LEARNING_STEPS:
            seen = observe(SITUATION, lengths, by_layer.beyond(TOP_K))
            steps[0].append(decided(seen, apart))
            steps[1].append(
                decided(replace(seen, coverage=by_head.beyond(TOP_K), latency=BY_HEAD), apart)
            )
        by_layer = by_layer.updated(lengths, curves.mean(axis=1))
        by_head = by_head.updated(lengths, apart)
    return steps


def decided(seen: Observation, apart: FloatArray) -> list[float]:
    """Returns one step's row; ``apart`` are the heads' own curves, [L * heads, N, K]."""
    policy = make_policy(WaterfillTuner(p=P))
    started = time.thread_time()
    top_k = policy.decide(seen)
    spent = 1e3 * (time.thread_time() - started)
    fixed = judged_ms(seen, np.full_like(top_k, TOP_K))
    of_heads = np.repeat(top_k, len(apart) // len(top_k), axis=0)
    return [fixed, judged_ms(seen, top_k), change(apart, of_heads, seen.lengths), spent]


def change(apart: FloatArray, top_k: IntArray, lengths: IntArray) -> float:
    """Returns the token-weighted mean of C(top_k) - C(k0) over layers and heads."""
    rung = np.searchsorted(LADDER, top_k)[..., None]
    gained = np.take_along_axis(apart, rung, axis=-1)[..., 0]
    gained -= apart[..., np.searchsorted(LADDER, TOP_K)]
    return float(np.average(gained.mean(axis=0), weights=lengths))


if __name__ == "__main__":
    main()
