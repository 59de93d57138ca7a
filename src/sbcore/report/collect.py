"""Gathers the files of a run; what is not there yet is None, what is wrong is an error."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sbcore.config.stages import ReportStage
from sbcore.report.contracts import (
    EvaluationResult,
    Manifest,
    PlanOverall,
    PlanSummary,
    TrainSummary,
    read_contract,
)
from sbcore.report.profiles import Latency, Lengths, read_latency, read_lengths
from sbcore.report.steps import (
    CURVE_COLUMNS,
    LEDGER_COLUMNS,
    Steps,
    read_columns,
    read_spans,
    read_steps,
)
from sbcore.types import Barrier

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Training:
    """A finished training."""

    summary: TrainSummary
    steps: Steps
    spans: "pl.DataFrame"
    """A row per step, rank and micro-batch."""
    ledger: "pl.DataFrame"
    """A row per step, layer and sequence."""
    curves: "pl.DataFrame | None"
    """What was learned of coverage, a row per layer, length and budget; None if not written."""


@dataclass(frozen=True)
class VariantRecord:
    """What a variant's stages left; None where a stage has not finished."""

    variant: str
    plan: PlanOverall | None
    training: Training | None
    evaluation: EvaluationResult | None
    evaluated: bool
    """Whether an evaluation was asked for."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the stages that have not finished."""
        stages: dict[str, object] = {"plan": self.plan, "train": self.training}
        if self.evaluated:
            stages["evaluate"] = self.evaluation
        return tuple(name for name, result in stages.items() if result is None)


@dataclass(frozen=True)
class RunRecord:
    """All that the report is made of."""

    run: str
    barrier: Barrier
    baseline: VariantRecord
    variants: list[VariantRecord]
    lengths: Lengths | None
    latency: Latency | None
    manifests: dict[str, Manifest]
    """By their path below the run's folder."""


def collect(config: ReportStage, run_dir: Path) -> RunRecord:
    """Returns the run's files; raises SparseBalanceError naming the file and key at fault."""
    folders = {name: run_dir / "variants" / name for name in config.variants}
    variants = {
        name: _variant(folder, evaluated=config.evaluated) for name, folder in folders.items()
    }
    return RunRecord(
        run=config.run,
        barrier=config.barrier,
        baseline=variants[config.baseline],
        variants=list(variants.values()),
        lengths=read_lengths(run_dir / "profile"),
        latency=read_latency(run_dir / "profile"),
        manifests=_manifests(run_dir),
    )


def _variant(folder: Path, *, evaluated: bool) -> VariantRecord:
    plan, result = folder / "plan" / "summary.json", folder / "eval" / "result.json"
    return VariantRecord(
        variant=folder.name,
        plan=read_contract(plan, PlanSummary).overall if plan.exists() else None,
        training=_training(folder / "train"),
        evaluation=read_contract(result, EvaluationResult) if result.exists() else None,
        evaluated=evaluated,
    )


def _training(folder: Path) -> Training | None:
    """Returns a training whose summary, its last file, is there."""
    path = folder / "summary.json"
    if not path.exists():
        return None
    curves = folder / "coverage.parquet"
    return Training(
        summary=read_contract(path, TrainSummary),
        steps=read_steps(folder / "metrics.jsonl"),
        spans=read_spans(folder / "micro_batches.parquet"),
        ledger=read_columns(folder / "ledger.parquet", LEDGER_COLUMNS),
        curves=read_columns(curves, CURVE_COLUMNS) if curves.is_file() else None,
    )


def _manifests(run_dir: Path) -> dict[str, Manifest]:
    patterns = ("*/manifest.json", "*/*.manifest.json", "variants/*/*/manifest.json")
    paths = sorted(path for pattern in patterns for path in run_dir.glob(pattern))
    own = run_dir / "report"
    return {
        str(path.relative_to(run_dir)): read_contract(path, Manifest)
        for path in paths
        if path.parent != own
    }
