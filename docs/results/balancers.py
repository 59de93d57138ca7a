"""Writes balancers.csv: every balancer, barrier and number of ranks on real length sets.

Simulated: steps are what the analytic, uncalibrated latency model predicts; only `plan_ms` is
measured, wall clock. The length sets are not ours to ship, so they are arguments:
``PYTHONPATH=src python docs/results/balancers.py NAME=FILE.csv ...``; 5 to 10 minutes.
"""

import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from sbcore.artifacts import replace_when_done
from sbcore.config.method import (
    BalancerConfig,
    KarmarkarKarpBalancer,
    LengthBalancer,
    MultifitBalancer,
    RandomBalancer,
    SabBalancer,
    TokensBalancer,
)
from sbcore.config.simulation import SimulationConfig
from sbcore.plan.cost import BudgetCost
from sbcore.plan.sampling import steps
from sbcore.plan.simulate import Method, Replay, replay
from sbcore.simulate.lengths import read_lengths
from sbcore.simulate.setting import ANALYTIC, Setting, load_latency
from sbcore.types import Barrier, FloatArray, IntArray

OUT = Path(__file__).with_name("balancers.csv")
CONFIG = SimulationConfig(num_steps=100)
PIPELINE_CONFIG = SimulationConfig(num_steps=20)
NUM_STAGES = 4
RANKS_AND_BATCHES = ((2, 16), (4, 16), (8, 16), (8, 64), (64, 256))
PIPELINES = ((2, 16), (4, 16), (8, 64))
BALANCERS: dict[str, BalancerConfig] = {
    "random": RandomBalancer(),
    "length": LengthBalancer(),
    "tokens": TokensBalancer(),
    "tokens_squared": TokensBalancer(cost="squared"),
    "karmarkar_karp": KarmarkarKarpBalancer(),
    "multifit": MultifitBalancer(),
    "sab": SabBalancer(),
}

Row = dict[str, str | int | float]


def main() -> None:
    """Writes all rows, whole or not at all."""
    sets = dict(word.split("=", 1) for word in sys.argv[1:])
    if not sets:
        raise SystemExit(__doc__)
    rows = [
        row
        for setting in settings({name: Path(file) for name, file in sets.items()})
        for row in compare(*setting)
    ]
    write_rows(OUT, rows)


def settings(sets: Mapping[str, Path]) -> Iterator[tuple[str, Setting]]:
    """Yields every situation, by the name of its length set."""
    latency, block_size, name = load_latency(ANALYTIC, block_size=CONFIG.block_size)
    for data, file in sets.items():
        lengths = read_lengths(file, column=None)
        for num_ranks, batch in RANKS_AND_BATCHES:
            for barrier in (Barrier.STEP, Barrier.MICRO):
                yield (
                    data,
                    Setting(lengths, latency, name, block_size, num_ranks, batch, barrier, CONFIG),
                )
        for num_ranks, batch in PIPELINES:
            yield (
                data,
                Setting(
                    lengths,
                    latency,
                    name,
                    block_size,
                    num_ranks,
                    batch,
                    Barrier.PIPELINE,
                    PIPELINE_CONFIG,
                    NUM_STAGES,
                ),
            )


def compare(data: str, setting: Setting) -> list[Row]:
    """Returns a row per balancer; all of them pack."""
    setting.check()
    scene = setting.scene(top_k=CONFIG.top_k)
    done = {
        name: replay(scene, Method(balancer, max_sequences=0, decide=None))
        for name, balancer in BALANCERS.items()
    }
    binds = longest_binds(setting)
    where: Row = {
        "data": data,
        "barrier": setting.barrier.value,
        "num_ranks": setting.num_ranks,
        "global_batch": setting.global_batch,
        "num_steps": setting.num_steps,
        "longest_binds": round(float(binds.mean()), 4),
    }
    sys.stderr.write(f"{where}\n")
    return [
        where | {"balancer": name} | figures(steps, done["random"], binds)
        for name, steps in done.items()
    ]


def figures(done: Replay, random: Replay, binds: IntArray) -> Row:
    """Returns the columns of one balancer; the last gap is of steps where no sequence binds."""
    gap = np.maximum(done.step_ms / done.bound_ms - 1.0, 0.0)
    return {
        "step_ms": round(float(done.step_ms.mean()), 2),
        "speedup_over_random": round(done.speedup_over(random), 4),
        "slowest_over_random": round(float((done.step_ms / random.step_ms).max()), 4),
        "imbalance": round(float(done.imbalance.mean()), 4),
        "gap_mean": round(float(gap.mean()), 5),
        "gap_p95": round(float(np.quantile(gap, 0.95)), 5),
        "gap_p95_unbound": p95(gap[binds == 0]),
        "plan_ms": round(float(np.median(done.plan_ms)), 3),
    }


def p95(gap: FloatArray) -> float | str:
    """Returns the 95th percentile, nothing where there are no steps."""
    return round(float(np.quantile(gap, 0.95)), 5) if len(gap) else ""


def longest_binds(setting: Setting) -> IntArray:
    """Returns 1 for each step whose longest sequence takes more than the mean rank's load."""
    scene = setting.scene(top_k=CONFIG.top_k)
    cost = BudgetCost(setting.latency, CONFIG.top_k)
    times = [
        cost.sequence_ms(setting.lengths[chosen])
        for chosen in steps(len(setting.lengths), scene.sampling, seed=scene.seed)
    ]
    return np.array([int(ms.max() > ms.sum() / setting.num_ranks) for ms in times])


def write_rows(path: Path, rows: list[Row]) -> None:
    """Writes a csv."""
    with replace_when_done(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
