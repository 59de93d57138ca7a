"""Writes what the simulator says of machines that nothing was measured on.

- ablation-dp8-predicted.csv: DP 4 and DP 8 on one host
- ablation-paper-predicted.csv: the paper's DP2 x PP4 and DP4 x PP4, and DP 2 beside them

``PYTHONPATH=src python docs/results/ablation_predicted.py [TABLE.parquet ...]``: latency tables as
`sb profile-latency` leaves them (or `analytic`, the uncalibrated model), else all tables of
config/latency; three each on one core. Where the same machine was measured
(`ablation-NxH100`, the same barrier and global batch), its speedup stands beside, in the rows of
the shape that it was measured with.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sbcore.ablation.results import read_steps
from sbcore.ablation.settings import read_length_set
from sbcore.ablation.table_in_use import read_header
from sbcore.artifacts import replace_when_done
from sbcore.config.simulation import SimulationConfig
from sbcore.latency.model import TableLatencyModel
from sbcore.simulate.run import simulate
from sbcore.simulate.setting import ANALYTIC, Setting, load_latency
from sbcore.simulate.words import BASELINE, VARIANTS
from sbcore.types import Barrier, LatencyModel

HERE = Path(__file__).parent
LENGTHS = HERE.parents[1] / "config" / "lengths" / "mooncake-conversation.csv"
TABLES = HERE.parents[1] / "config" / "latency"
CONFIG = SimulationConfig(num_steps=50)

Row = dict[str, str | int | float]


@dataclass(frozen=True)
class Machine:
    """Ranks, each a pipeline of stages, and where they wait."""

    num_ranks: int
    num_stages: int
    barrier: Barrier
    global_batch: int


ONE_HOST = [
    Machine(num_ranks, 1, barrier, batch)
    for barrier in (Barrier.MICRO, Barrier.STEP)
    for num_ranks in (4, 8)
    for batch in (16, 32, 64)
]
PAPER = [
    Machine(2, 1, Barrier.MICRO, 16),
    Machine(2, 1, Barrier.STEP, 16),
    Machine(2, 4, Barrier.PIPELINE, 16),
    Machine(4, 4, Barrier.PIPELINE, 16),
]
FILES = {"ablation-dp8-predicted.csv": ONE_HOST, "ablation-paper-predicted.csv": PAPER}


def main() -> None:
    """Writes each file whole or not at all."""
    sources = sys.argv[1:] or known_tables()
    for name, machines in FILES.items():
        rows = [row for source in sources for row in rows_of(source, machines)]
        write_rows(HERE / name, rows)


def known_tables() -> list[str]:
    """Returns the latency tables of config/latency."""
    return [str(path) for path in sorted(TABLES.glob("*.parquet"))]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes a csv, whole or not at all."""
    with replace_when_done(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def rows_of(source: str, machines: Sequence[Machine]) -> Iterator[Row]:
    """Yields a row per machine and variant, speedups over both baselines."""
    latency, block_size, name = read_source(source)
    lengths = read_length_set(LENGTHS, max_tokens=CONFIG.max_tokens).lengths
    for machine in machines:
        setting = Setting(
            lengths,
            latency,
            name,
            block_size,
            machine.num_ranks,
            machine.global_batch,
            machine.barrier,
            CONFIG,
            num_stages=machine.num_stages,
        )
        results = simulate(setting, list(VARIANTS))
        packed = next(result.speedup for result in results if result.variant == "baseline_packed")
        sys.stderr.write(f"{name}: {machine}\n")
        measured = measured_speedups(machine, name)
        for result in results:
            yield {
                "latency": name,
                "lengths": LENGTHS.stem,
                "barrier": machine.barrier.value,
                "num_ranks": machine.num_ranks,
                "num_stages": machine.num_stages,
                "global_batch": machine.global_batch,
                "variant": result.variant,
                "simulated_steps": setting.num_steps,
                "simulated_speedup": round(result.speedup, 3),
                "simulated_speedup_over_packed": round(result.speedup / packed, 3),
                "measured_speedup": measured.get(result.variant, ""),
                "simulated_imbalance": round(result.imbalance, 3),
                "simulated_waiting_pct": round(100 * result.bubble, 2),
                "coverage_delta_by_law": round(result.coverage_delta, 2) + 0.0,
            }


def measured_speedups(machine: Machine, latency_name: str) -> dict[str, float]:
    """Returns each variant's speedup over baseline in all measured rounds, if there are any.

    Of the shape that the table's name holds.
    """
    file = HERE / f"ablation-{machine.num_ranks}xh100-steps.csv.gz"
    if machine.num_stages > 1 or not file.is_file():
        return {}
    total: dict[str, float] = {}
    for place, steps in read_steps(file).items():
        where = (place.lengths, place.barrier, int(place.global_batch))
        asked = (LENGTHS.stem, machine.barrier.value, machine.global_batch)
        if where == asked and place.shape.lower() in latency_name:
            for step in steps:
                if step.measured:
                    total[step.variant] = total.get(step.variant, 0.0) + step.step_ms
    return {name: round(total[BASELINE] / ms, 3) for name, ms in total.items()}


def read_source(source: str) -> tuple[LatencyModel, int, str]:
    """Returns a latency model, its block_size and its name."""
    if source == ANALYTIC:
        return load_latency(source, block_size=CONFIG.block_size)
    header, path = read_header(Path(source)), Path(source)
    block_size = header["block_size"]
    name = f"{path.stem}, measured on {header['device']}"
    return TableLatencyModel.read(path, block_size=block_size), block_size, name


if __name__ == "__main__":
    main()
