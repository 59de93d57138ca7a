"""Starts in several folders put together: files to commit, a row per setting and variant."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sbcore.ablation.journal import RAW_COLUMNS, Cells, Journal, raw_cells
from sbcore.ablation.ratios import by_variant
from sbcore.ablation.results import JOURNAL, STEPS, read_steps, write_rows
from sbcore.ablation.steps import MeasuredStep
from sbcore.ablation.table import COLUMNS, Place, variant_row
from sbcore.artifacts import read_json, write_json
from sbcore.errors import SparseBalanceError

AND = "+"
"""Between the starts that a row counts together."""

Found = Mapping[Place, Sequence[MeasuredStep]]


def collect(folders: Sequence[Path], csv: Path) -> None:
    """Writes the csv, its steps and its manifests, from folders that the comparison wrote.

    What a killed start left counts too; a start that stands in several folders counts once, where
    it has most steps. The folders stay as they are.

    Raises:
        SparseBalanceError: A folder holds no steps, or a start without a measured round only.
    """
    found: dict[Place, Sequence[MeasuredStep]] = {}
    manifests: dict[str, object] = {}
    for folder in folders:
        for place, steps in _steps_of(folder).items():
            if len(steps) > len(found.get(place, [])):
                found[place] = steps
        for path in folder.glob("manifest-*.json"):
            manifests[path.stem.removeprefix("manifest-")] = read_json(path)
    rows = list(_rows(found))
    if not rows:
        raise SparseBalanceError(
            f"{', '.join(map(str, folders))}: no measured round, warm-up at most. measure longer."
        )
    raw = [raw_cells(place, step) for place, steps in found.items() for step in steps]
    write_rows(csv, COLUMNS, rows)
    write_rows(csv.with_name(f"{csv.stem}-steps.csv.gz"), RAW_COLUMNS, raw)
    write_json(csv.with_name(f"{csv.stem}-manifest.json"), {"starts": manifests})


def _steps_of(folder: Path) -> Found:
    whole = read_steps(folder / STEPS) if (folder / STEPS).is_file() else {}
    killed = Journal(folder / JOURNAL).take()
    if not whole and not killed:
        raise SparseBalanceError(
            f"{folder}: neither {STEPS} nor {JOURNAL}. name folders of sbcore.ablation."
        )
    return whole | killed


def _rows(found: Found) -> list[Cells]:
    """Returns a row per setting and variant over all its starts."""
    together: dict[Place, list[MeasuredStep]] = {}
    starts: dict[Place, list[str]] = {}
    for place, steps in found.items():
        setting = replace(place, run_id="")
        together.setdefault(setting, []).extend(steps)
        starts.setdefault(setting, []).append(place.run_id)
    return [
        {
            name: str(value)
            for name, value in variant_row(
                replace(setting, run_id=AND.join(starts[setting])), variant, measured
            ).items()
        }
        for setting, steps in together.items()
        for variant, measured in by_variant(steps).items()
    ]
