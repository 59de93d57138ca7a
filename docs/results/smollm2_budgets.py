"""What budgets the tuned variants of SmolLM2's evidence gave to which samples, decided again.

    export PYTHONPATH=src:kernels
    python docs/results/smollm2_budgets.py measure FOLDER MODEL curves.npz
    python docs/results/smollm2_budgets.py decide FOLDER MODEL curves.npz \
      docs/results/smollm2-budgets.csv

The trainings kept coverage_delta of their steps, not budgets. ``measure`` takes coverage curves of
some samples, read by the start (MODEL), on a CPU in some 10 minutes; ``decide`` replays all steps
with the tuner: every sample has the curve of one that was measured, of its kind and length. The
trainings' own curves moved with the weights, and were clamped by layer: coverage_delta over all
steps says how near the replay is.

L layers, N sequences, K rungs of the ladder.
"""

import sys
from collections.abc import Iterator, Mapping
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality_runs import write_rows
from quality_summary import TUNED
from quality_training import Training, of_parts
from smollm2_recipe import Recipe

from sbcore.attention import AttentionCall
from sbcore.train.batches import pack
from sbcore.train.step import packed_loss
from sbcore.tune.coverage import buckets_of, coverage_at
from sbcore.tune.ledger import collect
from sbcore.types import FloatArray, IntArray

_NUM_MEASURED = 3
"""Samples of each kind and length."""
_EDGES = (0, 1024, 2100, 4200, 7000, 9000)

Kind = tuple[int, str]
"""Length bucket, origin."""
Curves = Mapping[Kind, FloatArray]
"""Curves [n, L, K] of what was measured."""


def main() -> None:
    """Does what the first word says."""
    match sys.argv[1:]:
        case ["measure", folder, model, curves]:
            recipe = Recipe.read(Path(folder))
            named = dict(measured(start(folder, model, TUNED[0]), recipe))
            np.savez(curves, allow_pickle=False, **named)
        case ["decide", folder, model, curves, table]:
            with np.load(curves) as stored:
                found = {(int(key.split()[0]), key.split()[1]): stored[key] for key in stored}
            recipe = Recipe.read(Path(folder))
            trainings = [start(folder, model, name) for name in TUNED]
            rows = [row for training in trainings for row in decided(training, recipe, found)]
            write_rows(Path(table), tuple(rows[0]), rows)
        case _:
            raise SystemExit(__doc__)


def start(folder: str, model: str, name: str) -> Training:
    """Returns the training of a variant before its first step."""
    recipe = Recipe.read(Path(folder))
    return Training(recipe, Path(folder), Path(model), name, seed=0, device=torch.device("cpu"))


def kinds_of(training: Training, recipe: Recipe) -> list[Kind]:
    """Returns each sample's length bucket and origin; questions about meetings come first."""
    buckets = buckets_of(training.store.lengths, recipe.block_size)
    origins = ["qmsum" if i < recipe.num_questions else "made" for i in range(len(buckets))]
    return list(zip(buckets.tolist(), origins, strict=True))


def measured(training: Training, recipe: Recipe) -> Iterator[tuple[str, FloatArray]]:
    """Yields curves [n, L, K] of samples that k0 does not cover, under their kind's name."""
    beyond = np.flatnonzero(training.store.lengths > recipe.block_size * recipe.top_k)
    drawn = np.random.default_rng(0).permutation(beyond).tolist()
    kinds = kinds_of(training, recipe)
    for kind, samples in groupby(sorted(drawn, key=kinds.__getitem__), kinds.__getitem__):
        curves = [curve_of(training, i) for i in list(samples)[:_NUM_MEASURED]]
        sys.stderr.write(f"{kind}: {len(curves)} measured\n")
        yield f"{kind[0]} {kind[1]}", np.stack(curves)


def curve_of(training: Training, sample: int) -> FloatArray:
    """Returns a sample's coverage curve in every layer, [L, K]."""
    attention, shape = training.stage.attention, (training.latency.num_layers, 1)
    batch = pack(training.store, [sample], (0,), training.device)
    budgets = training.tuner.budgets(np.full(shape, attention.top_k), batch, step=0)
    call = AttentionCall(
        cu_seqlens=batch.cu_seqlens,
        lengths=batch.lengths,
        block_size=attention.block_size,
        backend=attention.backend,
        budgets=budgets,
    )
    with torch.no_grad():
        packed_loss(training.model, batch, call)
    ladder = training.tuner.coverage.ladder
    curves, _ = of_parts(collect([budgets]).result(), shape, num_rungs=len(ladder))
    return curves[:, 0]


def decided(training: Training, recipe: Recipe, found: Curves) -> Iterator[dict[str, Any]]:
    """Yields a row per origin and length, and one of all steps."""
    top_k, kinds = recipe.top_k, kinds_of(training, recipe)
    rng, deltas = np.random.default_rng(0), []
    rows: list[Any] = []
    for step in range(len(training.batches)):
        plan, tuner = training.lay_out(step), training.tuner
        targets, ladder = tuner.targets(plan, step), tuner.coverage.ladder
        curves = _curves([kinds[i] for i in plan.sample_ids], found, rng, like=targets, of=ladder)
        delta = tuner.coverage.delta(plan.lengths, targets, top_k=top_k, curves=curves)
        deltas.append(delta or 0.0)
        tuner.learn(plan.lengths, curves)
        tuner.review({"step": step, "step_ms": 1.0, "coverage_delta": delta})
        change = coverage_at(curves, ladder, targets) - curves[..., ladder.tolist().index(top_k)]
        origins = [kinds[i][1] for i in plan.sample_ids]
        rows += zip(origins, plan.lengths, targets.T, 100 * change.mean(axis=0), strict=True)
    yield from _means(training.stage.variant, rows)
    place = {"variant": training.stage.variant, "origin": "all", "tokens": "all"}
    yield place | {"num_samples": len(rows), "coverage_delta": round(float(np.mean(deltas)), 3)}


def _curves(
    kinds: list[Kind], found: Curves, rng: np.random.Generator, *, like: IntArray, of: IntArray
) -> FloatArray:
    """Returns a drawn curve for each sample, [L, N, K]; NaN where its kind has none."""
    curves = np.full((*like.shape, len(of)), np.nan)
    for place, kind in enumerate(kinds):
        if kind in found:
            curves[:, place] = rng.choice(found[kind])
    return curves


def _means(variant: str, rows: list[Any]) -> Iterator[dict[str, Any]]:
    for origin in ("made", "qmsum"):
        for low, high in pairwise(_EDGES):
            chosen = [row for row in rows if row[0] == origin and low < row[1] <= high]
            if not chosen:
                continue
            budgets = np.array([row[2].mean() for row in chosen])
            known = [row[3] for row in chosen if np.isfinite(row[3])]
            yield {
                "variant": variant,
                "origin": origin,
                "tokens": f"{low + 1}-{high}",
                "num_samples": len(chosen),
                "top_k": round(float(budgets.mean()), 2),
                "top_k_p10": round(float(np.percentile(budgets, 10)), 2),
                "top_k_p90": round(float(np.percentile(budgets, 90)), 2),
                "coverage_delta": round(float(np.mean(known)), 3) if known else "",
            }


if __name__ == "__main__":
    main()
