"""Times LongBench's samples, read by SmolLM2's start alone on one device, and says what timed them.

    export PYTHONPATH=src:kernels TOKENIZERS_PARALLELISM=false
    python docs/results/smollm2_alone.py FOLDER smollm2-alone.csv

FOLDER is what `smollm2.py prepare` made, with start's weights in it. One reading after the other,
each from loading the model to the last score, nothing kept of earlier calls; see to it that nothing
else uses the device. A row for each reading; beside them ``-manifest.json``: command, commit,
device, versions, the digests of what was read.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from quality_runs import write_rows
from smollm2_recipe import BEFORE, Recipe
from smollm2_train import PREFIX, answer_set

from sbcore.artifacts import write_json, write_manifest
from sbcore.config.stages import evaluate_stage
from sbcore.device import device_name
from sbcore.train.summary import backend_name

COLUMNS = ("device", "reading", "longbench_s", "score_mean")


def main() -> None:
    """Writes the rows and their manifest when all readings are done."""
    arguments = _arguments()
    recipe, device = Recipe.read(arguments.folder), torch.device(arguments.device)
    begun = time.perf_counter()
    rows = [timed(recipe, arguments.folder, name, device=device) for name in arguments.readings]
    write_rows(arguments.table, COLUMNS, rows)
    write_facts(arguments, recipe, device=device, seconds=time.perf_counter() - begun)


def timed(recipe: Recipe, folder: Path, name: str, *, device: torch.device) -> dict[str, Any]:
    """Returns the row of a reading, its answers given anew."""
    with tempfile.TemporaryDirectory(prefix="smollm2-alone-") as out:
        begun = time.perf_counter()
        mean = answer_set(
            recipe, folder, Path(out), name, "longbench", model=folder / "start", device=device
        )
        took = time.perf_counter() - begun
    sys.stderr.write(f"{name}: longbench {mean:.2f} in {took:.0f} s\n")
    values = (device_name(device), name, round(took, 1), round(mean, 1))
    return dict(zip(COLUMNS, values, strict=True))


def write_facts(
    arguments: argparse.Namespace, recipe: Recipe, *, device: torch.device, seconds: float
) -> None:
    """Writes the manifest beside the rows; the commit is what was named, else the checkout's."""
    folder, config = arguments.folder, recipe.config(seed=0)
    settings = [evaluate_stage(config, name.removeprefix(PREFIX)) for name in arguments.readings]
    names = [backend_name(one.kind, one.attention, device.type) for one in settings]
    path = arguments.table.with_name(f"{arguments.table.stem}-manifest.json")
    manifest = write_manifest(
        path,
        stage="evaluate",
        config=config.model_dump_json(),
        inputs={"start": folder / "start", "longbench": folder / "tasks" / "longbench"},
        device=device_name(device),
        backend=", ".join(dict.fromkeys(names)),
        seconds=seconds,
        mlflow_run_id=None,
    )
    if arguments.commit is not None:
        write_json(path, manifest | {"commit": arguments.commit, "dirty": None})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="smollm2_alone.py", description=__doc__)
    parser.add_argument("folder", type=Path, help="what smollm2.py prepared, start's weights in it")
    parser.add_argument("table", type=Path, help="csv file to write")
    parser.add_argument("--readings", nargs="+", choices=BEFORE, default=BEFORE)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--commit", help="where the checkout is not at hand")
    return parser.parse_args()


if __name__ == "__main__":
    main()
