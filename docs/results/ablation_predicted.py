"""Writes ablation-dp8-predicted.csv: what the simulator says of DP 4 and DP 8. Nothing is measured.

``PYTHONPATH=src python docs/results/ablation_predicted.py [TABLE ...]``: latency tables as
`sb profile-latency` leaves them, else the analytic, uncalibrated model; two minutes each. Measured
rows stand in ablation-8xh100.csv, with other columns, so that neither is taken for the other.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from sbcore.ablation.settings import read_length_set
from sbcore.artifacts import replace_when_done
from sbcore.config.simulation import SimulationConfig
from sbcore.simulate.run import simulate
from sbcore.simulate.setting import ANALYTIC, Setting, load_latency
from sbcore.simulate.words import VARIANTS
from sbcore.types import Barrier

OUT = Path(__file__).with_name("ablation-dp8-predicted.csv")
LENGTHS = Path(__file__).parents[2] / "config" / "lengths" / "mooncake-conversation.csv"
CONFIG = SimulationConfig(num_steps=50)
RANKS, BATCHES, BARRIERS = (4, 8), (16, 32, 64), (Barrier.MICRO, Barrier.STEP)

Row = dict[str, str | int | float]


def main() -> None:
    """Writes all rows, whole or not at all."""
    sources = sys.argv[1:] or [ANALYTIC]
    rows = [row for source in sources for setting in settings(source) for row in rows_of(setting)]
    with replace_when_done(OUT) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def settings(source: str) -> Iterator[Setting]:
    """Yields every situation."""
    latency, block_size, name = load_latency(source, block_size=CONFIG.block_size)
    lengths = read_length_set(LENGTHS, max_tokens=CONFIG.max_tokens).lengths
    for barrier in BARRIERS:
        for num_ranks in RANKS:
            for batch in BATCHES:
                yield Setting(lengths, latency, name, block_size, num_ranks, batch, barrier, CONFIG)


def rows_of(setting: Setting) -> Iterator[Row]:
    """Yields a row per variant, speedups over both baselines."""
    results = simulate(setting, list(VARIANTS))
    packed = next(result.speedup for result in results if result.variant == "baseline_packed")
    for result in results:
        yield {
            "latency": setting.latency_name,
            "lengths": LENGTHS.stem,
            "barrier": setting.barrier.value,
            "num_ranks": setting.num_ranks,
            "global_batch": setting.global_batch,
            "variant": result.variant,
            "simulated_steps": setting.num_steps,
            "simulated_speedup": round(result.speedup, 3),
            "simulated_speedup_over_packed": round(result.speedup / packed, 3),
            "simulated_imbalance": round(result.imbalance, 3),
            "simulated_waiting_pct": round(100 * result.bubble, 2),
            "coverage_delta_by_law": round(result.coverage_delta, 2) + 0.0,
        }
    sys.stderr.write(f"{setting.num_ranks} ranks, {setting.barrier}, {setting.global_batch}\n")


if __name__ == "__main__":
    main()
