"""Writes what a run measured of the variants beside the simulation: tuning_measured.csv.

    PYTHONPATH=src python docs/explanation/tuning_measured.py results/RUN

Needs the run's report. Then write the page anew (tuning_page.py).
"""

import csv
import json
import sys
from pathlib import Path

TABLE = Path(__file__).with_name("tuning_measured.csv")
COLUMNS = ("run", "device", "commit", "variant", "speedup", "coverage_delta", "overhead_pct")


def main(run_dir: Path) -> None:
    """Writes the table."""
    summary = json.loads((run_dir / "report" / "summary.json").read_text(encoding="utf-8"))
    with TABLE.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, COLUMNS, lineterminator="\n", extrasaction="ignore")
        table.writeheader()
        for row in summary["variants"]:
            folder = run_dir / "variants" / row["variant"] / "train"
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            where = {"device": manifest["device"], "commit": (manifest["commit"] or "")[:7]}
            table.writerow(row | where | {"run": summary["run"]})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
