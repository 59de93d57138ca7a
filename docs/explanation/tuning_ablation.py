"""The variants simulated on real lengths, with both levels of tuning; writes tuning_ablation.csv.

    PYTHONPATH=src python docs/explanation/tuning_ablation.py FOLDER_OF_LENGTHS

FOLDER_OF_LENGTHS holds mooncake_conversation_lengths.csv and qmsum_sft_lengths.csv, whose column of
lengths is the first with `token` in its name. Lengths above 65,536 are left out. The budgets that
policies decide are clamped layer by layer with the sequences' own curves, as in training. Takes
half a minute.
"""

import csv
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sbcore.config.method import AnchorTuner, BoundedTuner, FixedTuner
from sbcore.config.simulation import SimulationConfig
from sbcore.plan.simulate import Method, replay
from sbcore.simulate.coverage import LawfulCoverage
from sbcore.simulate.lengths import read_lengths
from sbcore.simulate.setting import ANALYTIC, Setting, load_latency
from sbcore.simulate.tuning import make_law, teach
from sbcore.simulate.words import VARIANTS
from sbcore.tune.coverage import CoverageModel, budget_bounds, coverage_at
from sbcore.tune.judged import judged_ms
from sbcore.tune.policy import BudgetPolicy, LearningPolicy, Observation, make_policy
from sbcore.tune.times import step_times
from sbcore.types import Barrier, BatchPlan, FloatArray, IntArray

TABLE = Path(__file__).with_name("tuning_ablation.csv")
NAMES = ("baseline", "dst", "lbb", "lbb_dst", "sab", "sab_dst", "sab_waterfill")
DATA = {"mooncake": "mooncake_conversation_lengths.csv", "qmsum": "qmsum_sft_lengths.csv"}
SITUATIONS = [
    ("mooncake", Barrier.STEP, 2, 16),
    ("mooncake", Barrier.STEP, 4, 16),
    ("mooncake", Barrier.STEP, 8, 16),
    ("mooncake", Barrier.STEP, 8, 64),
    ("mooncake", Barrier.MICRO, 4, 16),
    ("mooncake", Barrier.MICRO, 8, 64),
    ("qmsum", Barrier.STEP, 4, 16),
]
COLUMNS = ("data", "barrier", "num_ranks", "global_batch", "variant", "step_ms", "speedup")
COLUMNS += ("imbalance", "coverage_delta", "worst_layer", "anchor_miss_pct", "bubble_pct")
NUM_STEPS, LONGEST = 100, 65_536


@dataclass
class Decisions:
    """A tuner at work: decides, is clamped by the step's own curves, is judged, then learns."""

    setting: Setting
    policy: BudgetPolicy
    tuner: BoundedTuner
    law: LawfulCoverage
    known: CoverageModel
    deltas: list[FloatArray] = field(default_factory=list)  # [L] of each step, points
    misses: list[float] = field(default_factory=list)

    def __call__(self, lengths: IntArray, batch: BatchPlan) -> IntArray:
        """Returns top_k [num_layers, N] of the next step, as used."""
        setting = self.setting
        known = self.known.beyond(setting.config.top_k)
        seen = Observation(
            lengths, batch, setting.barrier, setting.latency, known, setting.config.top_k
        )
        draw = setting.config.num_learning_steps + len(self.deltas)
        curves = self.law.curves(lengths, draw=draw)
        used = clamped(self.policy.decide(seen), curves, self.law.ladder, seen.top_k, self.tuner)
        base = curves[..., np.searchsorted(self.law.ladder, seen.top_k)]
        change = coverage_at(curves, self.law.ladder, used) - base
        self.deltas.append(100 * np.average(change, axis=1, weights=lengths))
        if isinstance(self.policy, LearningPolicy):
            delta = np.average(self.deltas[-1])
            step = len(self.deltas) - 1
            self.policy.learn(step, step_ms=judged_ms(seen, used), coverage_delta=float(delta))
        self.misses += anchor_misses(seen, used)
        self.known = self.known.updated(lengths, curves)
        return used


def clamped(
    targets: IntArray, curves: FloatArray, ladder: IntArray, top_k: int, tuner: BoundedTuner
) -> IntArray:
    """Returns what layers use of the targets, [L, N]: within p by their curves, with the carry."""
    low, high = budget_bounds(curves, ladder, top_k=top_k, p=tuner.p)
    used, carry = targets.copy(), np.zeros(targets.shape[1], dtype=np.int64)
    for layer, wanted in enumerate(targets):
        used[layer] = np.clip(wanted - carry, low[layer], high[layer])
        carry += used[layer] - wanted
    return used


def anchor_misses(seen: Observation, used: IntArray) -> list[float]:
    """Returns |t - anchor| / anchor of every load that has sequences, anchor = mean at k0."""
    times, latency = step_times(seen), seen.latency
    base = np.full_like(used, seen.top_k)
    at_k0, at_used = (
        times.loads.load_ms(times.micro_batch_ms(latency.attention_ms(seen.lengths, top_k)))
        for top_k in (base, used)
    )
    anchor = times.loads.column_mean_ms(at_k0)[times.loads.column]
    busy = np.unique(times.loads.load[times.loads.micro_batch])
    return [float(x) for x in (np.abs(at_used - anchor) / anchor)[busy]]


def rows_of(setting: Setting, name: str) -> list[list[object]]:
    """Returns the variants' rows of one situation."""
    rows: list[list[object]] = []
    baseline_ms = 0.0
    for variant in NAMES:
        config = VARIANTS[variant]
        decide = None
        if not isinstance(config.tuner, FixedTuner):
            assert isinstance(config.tuner, BoundedTuner), config.tuner
            law = make_law(setting)
            known = teach(setting, law, config.tuner)
            decide = Decisions(setting, make_policy(config.tuner), config.tuner, law, known)
        method = Method(config.balancer, config.max_sequences, decide=decide)
        steps = replay(setting.scene(top_k=setting.config.top_k), method)
        baseline_ms = baseline_ms or float(steps.step_ms.sum())
        row = [name, setting.barrier, setting.num_ranks, setting.global_batch, variant]
        row += [f"{steps.step_ms.mean():.1f}", f"{baseline_ms / steps.step_ms.sum():.4f}"]
        row += [f"{steps.imbalance.mean():.4f}", *judged(decide), f"{100 * steps.bubble:.2f}"]
        rows.append(row)
    return rows


def judged(decide: Decisions | None) -> list[str]:
    """Returns coverage_delta, its worst layer, and the median miss of the anchor, per cent."""
    if decide is None:
        return ["0.000", "0.000", ""]
    layers = np.mean(decide.deltas, axis=0)
    miss = ""
    if isinstance(decide.tuner, AnchorTuner):
        miss = f"{100 * np.median(decide.misses):.2f}"
    return [f"{layers.mean():.3f}", f"{layers.min():.3f}", miss]


def main(folder: Path) -> None:
    """Writes the table."""
    latency, block_size, source = load_latency(ANALYTIC, block_size=256)
    config = SimulationConfig(num_steps=NUM_STEPS)
    with TABLE.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)
        for name, barrier, num_ranks, global_batch in SITUATIONS:
            lengths = read_lengths(folder / DATA[name], column=None)
            lengths = lengths[lengths <= LONGEST]
            setting = Setting(
                lengths, latency, source, block_size, num_ranks, global_batch, barrier, config
            )
            table.writerows(rows_of(setting, name))
            stream.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
