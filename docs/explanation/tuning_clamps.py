"""What layers lose when they clamp in every n-th step only; prints a csv, simulated.

    PYTHONPATH=src python docs/explanation/tuning_clamps.py FOLDER_OF_LENGTHS

Lengths, law and times are those of tuning_ablation.py, under barrier `micro` with SAB's plans.
Steps between clamps use what the policy decided from averages, and teach it nothing. `spread` is
alpha's standard deviation over sequences, `drift` how much its mean rises in 100 steps, as if the
model learned to route. Takes four minutes.
"""

import csv
import sys
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from tuning_ablation import DATA, LONGEST, Decisions, clamped

from sbcore.config.method import AnchorTuner, SabBalancer, WaterfillTuner
from sbcore.config.simulation import SimulationConfig
from sbcore.plan.simulate import Method, replay
from sbcore.simulate.coverage import LawfulCoverage
from sbcore.simulate.lengths import read_lengths
from sbcore.simulate.setting import ANALYTIC, Setting, load_latency
from sbcore.simulate.tuning import make_law, teach
from sbcore.tune.coverage import coverage_at
from sbcore.tune.judged import judged_ms
from sbcore.tune.policy import LearningPolicy, Observation, make_policy
from sbcore.types import Barrier, BatchPlan, IntArray

EVERY, NUM_STEPS = (1, 2, 4, 8, 16), 64
COLUMNS = ("num_ranks", "global_batch", "spread", "drift", "tuner", "clamp_every_steps", "step_ms")
COLUMNS += ("coverage_delta", "worst_layer", "lost_beyond_p_pct", "worst_loss")


@dataclass
class SeldomClamped(Decisions):
    """A tuner whose layers clamp and measure in every n-th step."""

    every: int = 1
    drift: float = 0.0
    beyond: list[float] = field(default_factory=list)
    """Share of each step's tokens and layers that lose more than p."""
    worst: list[float] = field(default_factory=list)
    """Each step's greatest loss of a layer of a sequence, points."""

    def __call__(self, lengths: IntArray, batch: BatchPlan) -> IntArray:
        """Returns top_k [num_layers, N] of the next step, as used."""
        setting, step = self.setting, len(self.deltas)
        known = self.known.beyond(setting.config.top_k)
        seen = Observation(
            lengths, batch, setting.barrier, setting.latency, known, setting.config.top_k
        )
        law = self._law_at(step)
        curves = law.curves(lengths, draw=setting.config.num_learning_steps + step)
        used = self.policy.decide(seen)
        if step % self.every == 0:
            used = clamped(used, curves, law.ladder, seen.top_k, self.tuner)
            self.known = self.known.updated(lengths, curves)
        change = coverage_at(curves, law.ladder, used)
        change -= curves[..., np.searchsorted(law.ladder, seen.top_k)]
        self.deltas.append(100 * np.average(change, axis=1, weights=lengths))
        if step % self.every == 0 and isinstance(self.policy, LearningPolicy):
            delta = float(np.average(self.deltas[-1]))
            self.policy.learn(step, step_ms=judged_ms(seen, used), coverage_delta=delta)
        lost = (change < -self.tuner.p - 1e-9).mean(axis=0)
        self.beyond.append(float(np.average(lost, weights=lengths)))
        self.worst.append(100 * float(change.min()))
        return used

    def _law_at(self, step: int) -> LawfulCoverage:
        config = self.setting.config
        alpha = config.coverage.alpha + self.drift * step / 100
        return LawfulCoverage(
            config.coverage.model_copy(update={"alpha": alpha}),
            self.law.ladder,
            num_layers=self.setting.latency.num_layers,
            block_size=self.setting.block_size,
            seed=config.seed,
        )


def row_of(
    setting: Setting, tuner: AnchorTuner | WaterfillTuner, *, every: int, drift: float
) -> tuple[str, ...]:
    """Returns the measures of one run: time, and what coverage did."""
    law = make_law(setting)
    known = teach(setting, law, tuner)
    decide = SeldomClamped(setting, make_policy(tuner), tuner, law, known, every=every, drift=drift)
    steps = replay(
        setting.scene(top_k=setting.config.top_k), Method(SabBalancer(), 0, decide=decide)
    )
    layers = np.mean(decide.deltas, axis=0)
    return (
        f"{steps.step_ms.mean():.0f}",
        f"{layers.mean():+.2f}",
        f"{layers.min():+.2f}",
        f"{100 * np.mean(decide.beyond):.2f}",
        f"{min(decide.worst):.1f}",
    )


def main(folder: Path) -> None:
    """Prints the table."""
    latency, block_size, source = load_latency(ANALYTIC, block_size=256)
    lengths = read_lengths(folder / DATA["mooncake"], column=None)
    lengths = lengths[lengths <= LONGEST]
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(COLUMNS)
    situations = product(((2, 16), (8, 64)), (0.15, 0.3), (0.0, 0.4))
    for (num_ranks, global_batch), spread, drift in situations:
        config = SimulationConfig(num_steps=NUM_STEPS)
        law = config.coverage.model_copy(update={"alpha_sequence_std": spread})
        config = config.model_copy(update={"coverage": law})
        setting = Setting(
            lengths, latency, source, block_size, num_ranks, global_batch, Barrier.MICRO, config
        )
        for tuner, every in product((AnchorTuner(), WaterfillTuner()), EVERY):
            here = (num_ranks, global_batch, spread, drift, tuner.kind, every)
            table.writerow((*here, *row_of(setting, tuner, every=every, drift=drift)))
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
