"""Writes ablation-simulated.csv: measured steps beside what the simulator says of the same ones.

``PYTHONPATH=src python docs/results/ablation_simulated.py [ablation-2xh100 ...]`` reads those
comparisons' ``-steps.csv.gz`` from this folder, else all of them, replays their global batches with
the latency table of their shape, and prints what is written; a minute. Budgets of tuned variants
are simulated too, by a law of coverage, so only the others are the very steps that were measured.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import ablation_predicted
import numpy as np

from sbcore.ablation.results import read_steps
from sbcore.ablation.steps import MeasuredStep
from sbcore.ablation.table import Place
from sbcore.config.simulation import SimulationConfig
from sbcore.latency.additive import AdditiveLatency
from sbcore.simulate.run import replay_variant
from sbcore.simulate.setting import Setting
from sbcore.simulate.words import BASELINE, VARIANTS
from sbcore.types import Barrier, FloatArray

HERE = Path(__file__).parent
OUT = HERE / "ablation-simulated.csv"
ENDING = "-steps.csv.gz"

Steps = Sequence[MeasuredStep]
"""Of one start."""


def main() -> None:
    """Writes all rows, whole or not at all."""
    named = [HERE / f"{name}{ENDING}" for name in sys.argv[1:]]
    rows: list[ablation_predicted.Row] = []
    for file in named or sorted(HERE.glob(f"*{ENDING}")):
        for place, starts in by_setting(read_steps(file)).items():
            rows += compared(table_of(place), place, starts)
    ablation_predicted.write_rows(OUT, rows)
    for row in rows:
        sys.stdout.write("  ".join(f"{value!s:>12}" for value in list(row.values())[2:]) + "\n")


def by_setting(found: Mapping[Place, Steps]) -> dict[Place, list[Steps]]:
    """Returns the starts of each setting, whose place is without a run_id."""
    starts: dict[Place, list[Steps]] = {}
    for place, steps in found.items():
        starts.setdefault(replace(place, run_id=""), []).append(steps)
    return starts


def table_of(place: Place) -> str:
    """Returns the latency table of a comparison's shape."""
    shape = place.shape.lower()
    found = [name for name in ablation_predicted.known_tables() if Path(name).stem.endswith(shape)]
    if not found:
        raise SystemExit(
            f"config/latency: no table of {place.shape}. measure it: sb profile-latency"
        )
    return found[0]


def compared(
    source: str, place: Place, starts: Sequence[Steps]
) -> Iterator[ablation_predicted.Row]:
    """Yields a row per variant of one setting; speedups are those of all steps over baseline's."""
    together = [step for steps in starts for step in steps]
    setting = replayed(source, place, num_rounds=1 + max(step.round for step in together))
    simulated = {
        name: simulated_ms(setting, name)
        for name in VARIANTS
        if any(s.variant == name for s in together)
    }
    base = times_of(starts, BASELINE)
    for name, by_round in simulated.items():
        measured = times_of(starts, name)
        both = sorted(measured.keys() & base.keys())
        taken, rounds = np.array([measured[at] for at in both]), [number for _, number in both]
        says, base_says = by_round[rounds], simulated[BASELINE][rounds]
        speedup = sum(base[at] for at in both) / taken.sum()
        yield {
            "device": place.device,
            "latency": setting.latency_name,
            "lengths": place.lengths,
            "barrier": place.barrier,
            "global_batch": place.global_batch,
            "variant": name,
            "num_rounds": len(rounds),
            "measured_ms": round(float(np.median(taken)), 1),
            "measured_over_predicted": round(over_predicted(together, name), 3),
            "simulated_ms": round(float(np.median(says)), 1),
            "measured_over_simulated": round(float(np.median(taken / says)), 3),
            "ratio_p20": round(float(np.quantile(taken / says, 0.2)), 3),
            "ratio_p80": round(float(np.quantile(taken / says, 0.8)), 3),
            "measured_speedup": round(speedup, 3),
            "simulated_speedup": round(float(base_says.sum() / says.sum()), 3),
        }


def over_predicted(steps: Steps, name: str) -> float:
    """Returns a variant's measured over predicted step time, the median over rounds."""
    ratios = [s.step_ms / s.predicted_ms for s in steps if s.variant == name and s.measured]
    return float(np.median(ratios))


def times_of(starts: Sequence[Steps], name: str) -> dict[tuple[int, int], float]:
    """Returns a variant's measured step times by start and round, warm-up left out."""
    return {
        (start, step.round): step.step_ms
        for start, steps in enumerate(starts)
        for step in steps
        if step.variant == name and step.measured
    }


def simulated_ms(setting: Setting, name: str) -> FloatArray:
    """Returns a variant's simulated step times, the update included, by round."""
    assert isinstance(setting.latency, AdditiveLatency)
    times: FloatArray = replay_variant(setting, name)[0].step_ms + setting.latency.update_ms
    return times


def replayed(source: str, place: Place, *, num_rounds: int) -> Setting:
    """Returns the measured setting for the simulator: the same global batches, in order."""
    latency, block_size, name = ablation_predicted.read_source(source)
    lengths = ablation_predicted.LENGTHS.with_name(f"{place.lengths}.csv")
    config = SimulationConfig(num_steps=num_rounds)
    return Setting(
        ablation_predicted.read_length_set(lengths, max_tokens=config.max_tokens).lengths,
        latency,
        name,
        block_size,
        int(place.device.split(" x ")[0]),
        int(place.global_batch),
        Barrier(place.barrier),
        config,
    )


if __name__ == "__main__":
    main()
