"""Writes variants.csv: the named variants on real length sets, so that tuning's part is seen.

Simulated throughout: analytic, uncalibrated latency and a law of coverage (`sb simulate`).
``PYTHONPATH=src python docs/results/variants.py NAME=FILE.csv ...``; 5 to 10 minutes.
"""

import sys
from dataclasses import asdict
from pathlib import Path

import balancers

from sbcore.simulate.run import simulate
from sbcore.simulate.words import VARIANTS

OUT = Path(__file__).with_name("variants.csv")


def main() -> None:
    """Writes all rows, whole or not at all."""
    sets = {name: Path(file) for name, file in (word.split("=", 1) for word in sys.argv[1:])}
    if not sets:
        raise SystemExit(__doc__)
    rows: list[balancers.Row] = []
    for data, setting in balancers.settings(sets):
        where: balancers.Row = {
            "data": data,
            "barrier": setting.barrier.value,
            "num_ranks": setting.num_ranks,
            "global_batch": setting.global_batch,
            "num_steps": setting.num_steps,
        }
        sys.stderr.write(f"{where}\n")
        for result in simulate(setting, list(VARIANTS)):
            values = asdict(result)
            name = values.pop("variant")
            rounded = {key: round(value, 4) + 0.0 for key, value in values.items()}
            rows.append(where | {"variant": name} | rounded)
    balancers.write_rows(OUT, rows)


if __name__ == "__main__":
    main()
