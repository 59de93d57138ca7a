"""Continues SmolLM2 under each variant on one GPU and evaluates it, before and after.

    export PYTHONPATH=src:kernels TOKENIZERS_PARALLELISM=false
    python docs/results/smollm2_train.py FOLDER OUT --seeds 0 --variants baseline sab_waterfill

Ranks run one after the other, as in `quality_train.py`: the updates are theirs, only times are not.
Processes with other variants or seeds may run beside it, on this GPU or another
(CUDA_VISIBLE_DEVICES). ``OUT/seed0/VARIANT/`` gets the results of LongBench and of the made tasks
and metrics.json; what is finished is kept, and a killed process goes on after the training that it
finished and the answers that it gave. ``before_dense`` and ``before_baseline`` evaluate the start.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from quality_recipe import VARIANTS
from quality_training import Training
from rich.progress import Progress
from smollm2_recipe import BEFORE, Recipe

from sbcore.artifacts import package_versions, read_json, write_json
from sbcore.config.stages import evaluate_stage
from sbcore.device import device_name
from sbcore.evaluate.run import evaluate
from sbcore.evaluate.shards import ALONE

TASK_SETS = {"longbench": ["longbench"], "made": ["niah", "ruler"]}
_SHOWN = 20
PREFIX = "before_"


def main() -> None:
    """Runs what is missing."""
    arguments = _arguments()
    recipe, device = Recipe.read(arguments.folder), torch.device(arguments.device)
    for seed in arguments.seeds:
        for name in arguments.variants:
            out = arguments.out / f"seed{seed}"
            if not (out / name).is_dir():
                run_variant(recipe, arguments.folder, out, name, seed=seed, device=device)


def run_variant(
    recipe: Recipe, folder: Path, out: Path, name: str, *, seed: int, device: torch.device
) -> None:
    """Writes a variant's results; its folder appears when they are complete."""
    part = out / f".{name}.part"
    part.mkdir(parents=True, exist_ok=True)
    is_start = name.startswith(PREFIX)
    trained: dict[str, Any] = {"steps": [], "train_s": 0.0}
    if not is_start:
        trained = _train(recipe, folder, part, name, seed=seed, device=device)
    model = folder / "start" if is_start else part / "model"
    seconds = {"train": trained["train_s"]}
    for tasks in TASK_SETS:
        begun, goes_on = time.perf_counter(), (part / tasks).exists()
        mean = answer_set(recipe, folder, part, name, tasks, model=model, device=device)
        took = time.perf_counter() - begun
        # Of a killed evaluation only the rest was timed.
        seconds[tasks] = None if goes_on else took
        _say(seed, name, f"{tasks} {mean:.2f} in {took:.0f} s")
    facts = {"device": device_name(device), "packages": package_versions()}
    metrics = {"seed": seed, "steps": trained["steps"], "seconds": seconds}
    write_json(part / "metrics.json", metrics | facts)
    shutil.rmtree(part / "model", ignore_errors=True)
    part.rename(out / name)


def _train(
    recipe: Recipe, folder: Path, part: Path, name: str, *, seed: int, device: torch.device
) -> dict[str, Any]:
    """Returns the steps of the training, run if it was not; its model lies in ``part``."""
    done = part / "training.json"
    if not done.is_file():
        training = Training(recipe, folder, folder / "start", name, seed=seed, device=device)
        begun, rows = time.perf_counter(), []
        for step in range(len(training.batches)):
            rows.append(training.run_step(step))
            if step % _SHOWN == 0 or step + 1 == len(training.batches):
                row, seconds = rows[-1], time.perf_counter() - begun
                delta = "" if row["coverage_delta"] is None else f" {row['coverage_delta']:+.2f}"
                _say(seed, name, f"step {step + 1}  loss {row['loss']:.3f}{delta}  {seconds:.0f} s")
        training.save(part / "model")
        write_json(done, {"steps": rows, "train_s": time.perf_counter() - begun})
    return dict(read_json(done))


def answer_set(
    recipe: Recipe,
    folder: Path,
    part: Path,
    name: str,
    tasks: str,
    *,
    model: Path,
    device: torch.device,
) -> float:
    """Returns the mean score of a set of tasks, answered with the variant's attention."""
    settings = evaluate_stage(recipe.config(seed=0), name.removeprefix(PREFIX))
    asked = settings.evaluate.model_copy(update={"tasks": TASK_SETS[tasks]})
    result = evaluate(
        settings.model_copy(update={"device": device.type, "evaluate": asked}),
        model_dir=model,
        tokenizer_dir=folder / "start",
        task_dirs=[folder / "tasks" / name for name in ("longbench", "niah", "ruler")],
        out=part / tasks,
        shard=ALONE,
        progress=Progress(disable=True),
    )
    return float(result["score_mean"])


def _say(seed: int, name: str, text: str) -> None:
    sys.stderr.write(f"seed {seed} {name}: {text}\n")


def _arguments() -> argparse.Namespace:
    names = (*BEFORE, *VARIANTS)
    parser = argparse.ArgumentParser(prog="smollm2_train.py", description=__doc__)
    parser.add_argument("folder", type=Path, help="what smollm2.py prepared, start's weights in it")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", choices=names, default=names)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
