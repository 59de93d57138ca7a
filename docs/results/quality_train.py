r"""Trains and evaluates the variants of the quality evidence on one GPU, seed by seed.

    export PYTHONPATH=src:kernels TOKENIZERS_PARALLELISM=false
    for s in 0 1 2; do CUDA_VISIBLE_DEVICES=$s python docs/results/quality_train.py \
      FOLDER /tmp/quality --seeds $s --side-by-side 4 & done
    wait; tar czf quality.tgz --exclude base --exclude '.*.part' -C /tmp/quality .

All ranks' micro-batches of a step run one after the other on this device: the loss is divided by
the target tokens of the whole global batch, so the update is the one that so many ranks would make,
and so are the budgets, which follow from the plan and from predicted times. Only times are not.
``OUT/seed0/VARIANT/`` gets result.json, the predictions and metrics.json. What is finished is kept,
so a run with other seeds, or another machine's, only adds; the variants of a seed share one start,
OUT/seed0/base, and must come from one machine. ``--minutes`` starts no seed that would not end in
time by the last one's duration. Most of a variant is launching, so several share a GPU well. With
one after the other and two seeds on an H100, a start took 40 s, `dense` 190, `baseline` 120 s.
"""

import argparse
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from quality_base import train_base
from quality_recipe import VARIANTS, Recipe
from quality_training import Training
from rich.progress import Progress

from sbcore.artifacts import package_versions, write_json
from sbcore.config.stages import evaluate_stage
from sbcore.device import device_name
from sbcore.evaluate.run import evaluate
from sbcore.evaluate.shards import ALONE


def main() -> None:
    """Runs what is missing and leaves a summary of the circumstances."""
    arguments = _arguments()
    folder, out = arguments.folder, arguments.out
    recipe, device = Recipe.read(folder), torch.device(arguments.device)
    started, longest = time.perf_counter(), 0.0
    for seed in arguments.seeds:
        begun = time.perf_counter()
        if (begun - started + longest) / 60 > arguments.minutes:
            sys.stderr.write(f"seed {seed} would end too late: run it another time\n")
            break
        run_seed(
            recipe,
            folder,
            out / f"seed{seed}",
            seed=seed,
            device=device,
            side_by_side=arguments.side_by_side,
        )
        longest = max(longest, time.perf_counter() - begun)
    facts = {"device": device_name(device), "packages": package_versions()}
    write_json(out / "circumstances.json", facts)


def run_seed(
    recipe: Recipe,
    folder: Path,
    out: Path,
    *,
    seed: int,
    device: torch.device,
    side_by_side: int,
) -> None:
    """Writes the results of all variants of a seed, from one start, so many at a time."""
    missing = [name for name in VARIANTS if not (out / name / "result.json").is_file()]
    if missing and not (out / "base" / "config.json").is_file():
        train_base(recipe, folder, out / "base", seed=seed, device=device)
    with ProcessPoolExecutor(side_by_side, mp_context=get_context("spawn")) as processes:
        running = [
            processes.submit(_run_variant, recipe, folder, out, name, seed=seed, device=device)
            for name in missing
        ]
        for run in running:
            run.result()


def _run_variant(
    recipe: Recipe, folder: Path, out: Path, name: str, *, seed: int, device: torch.device
) -> None:
    config = recipe.config(seed=seed)
    part = out / f".{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    training = Training(recipe, folder, out / "base", name, seed=seed, device=device)
    begun = time.perf_counter()
    rows = [training.run_step(step) for step in range(len(training.batches))]
    training.save(part / "model")
    trained = time.perf_counter()
    settings = evaluate_stage(config, name).model_copy(update={"device": device.type})
    result = evaluate(
        settings,
        model_dir=part / "model",
        tokenizer_dir=out / "base",
        task_dirs=[folder / "demo" / "tasks"],
        out=part,
        shard=ALONE,
        progress=Progress(disable=True),
    )
    seconds = {"train": trained - begun, "evaluate": time.perf_counter() - trained}
    write_json(part / "metrics.json", {"seed": seed, "steps": rows, "seconds": seconds})
    shutil.rmtree(part / "model")
    part.rename(out / name)
    sys.stderr.write(
        f"seed {seed} {name}: loss {rows[0]['loss']:.3f} -> {rows[-1]['loss']:.3f}, mean score "
        f"{result['score_mean']:.1f}, {seconds['train']:.0f} + {seconds['evaluate']:.0f} s\n"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="quality_train.py", description=__doc__)
    parser.add_argument("folder", type=Path, help="what quality.py prepared")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=1e9, help="no seed starts too late")
    parser.add_argument("--side-by-side", type=int, default=1, help="variants on the device")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
