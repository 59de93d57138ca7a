"""From the first step or the newest checkpoint to the last step, with everything on disk."""

import gc
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbcore.tracking import Tracker
from sbcore.train.account import StepFacts, ledger_rows, span_rows
from sbcore.train.checkpoint import Checkpoints
from sbcore.train.loop import Trainer
from sbcore.train.records import MetricsFile, Table

TABLES = ("ledger.parquet", "micro_batches.parquet")


@dataclass
class RunFiles:
    """The tables of a run; only rank 0 writes."""

    folder: Path
    rank: int
    ledger: Table = field(default_factory=Table)
    spans: Table = field(default_factory=Table)

    @property
    def model(self) -> Path:
        """The trained model, a Hugging Face directory."""
        return self.folder / "model"

    @property
    def summary(self) -> Path:
        """Medians of the run."""
        return self.folder / "summary.json"

    @property
    def ledger_file(self) -> Path:
        """Budgets and coverage of every layer and sequence."""
        return self.folder / TABLES[0]

    def add(self, facts: StepFacts, trainer: Trainer) -> None:
        """Takes in a step."""
        ladder, top_k = trainer.tuner.coverage.ladder, trainer.stage.attention.top_k
        self.ledger.add(ledger_rows(facts, trainer.inputs.latency, ladder, top_k=top_k))
        self.spans.add(span_rows(facts, trainer.inputs.latency))

    def write(self, folder: Path) -> None:
        """Writes both tables into the folder."""
        for name, table in zip(TABLES, (self.ledger, self.spans), strict=True):
            table.write(folder / name)

    def load(self, folder: Path) -> None:
        """Takes over both tables from the folder."""
        for name, table in zip(TABLES, (self.ledger, self.spans), strict=True):
            table.load(folder / name)


def train(
    trainer: Trainer,
    checkpoints: Checkpoints,
    files: RunFiles,
    *,
    tracker: Tracker,
    resume: bool,
) -> list[dict[str, Any]]:
    """Runs all steps that are left; returns the rows of metrics of all steps (rank 0)."""
    step = _start(trainer, checkpoints, files, resume=resume)
    metrics = (
        MetricsFile(files.folder / "metrics.jsonl", first_step=step) if files.rank == 0 else None
    )
    # Hundreds of thousands of objects of imported libraries never die; looking through them all
    # stopped rank 0 for 0.4 s in the middle of a step.
    gc.collect()
    gc.freeze()
    every, num_steps = trainer.stage.train.checkpoint_every_steps, trainer.inputs.plan.num_steps
    while step < num_steps:
        facts, row = trainer.run_step(step)
        step += 1
        if metrics is not None:
            metrics.add(row)
            files.add(facts, trainer)
            tracker.metrics(_numbers(row), step=row["step"])
            _show_progress(trainer.stage.variant, row, num_steps)
        if step == num_steps or (every and step % every == 0):
            _save(trainer, checkpoints, files, step=step)
    if metrics is None:
        return []
    files.write(files.folder)
    return metrics.rows()


def _start(trainer: Trainer, checkpoints: Checkpoints, files: RunFiles, *, resume: bool) -> int:
    """Returns the first step to run; restores the newest checkpoint if there is one."""
    newest = checkpoints.newest() if resume else None
    if newest is None:
        checkpoints.clear()
        return 0
    step, averages = checkpoints.load(newest, trainer.model, trainer.optimizer)
    trainer.tuner.load_state_dict(averages)
    if files.rank == 0:
        files.load(newest)
        sys.stderr.write(f"train {trainer.stage.variant}: resumed at step {step} from {newest}\n")
    return step


def _save(trainer: Trainer, checkpoints: Checkpoints, files: RunFiles, *, step: int) -> None:
    with checkpoints.writing(step) as folder:
        if files.rank == 0:
            files.write(folder)
        checkpoints.save(
            folder,
            trainer.model,
            trainer.optimizer,
            step=step,
            finished=step == trainer.inputs.plan.num_steps,
            averages=trainer.tuner.state_dict(),
        )


def _numbers(row: dict[str, Any]) -> dict[str, float | None]:
    """Returns the row for tracking: plain numbers, ranks spread out by name."""
    numbers: dict[str, float | None] = {}
    for key, value in row.items():
        if isinstance(value, list):
            numbers |= {f"{key}.rank{rank}": x for rank, x in enumerate(value)}
        elif key != "step" and not isinstance(value, bool):
            numbers[key] = value
    return numbers


def _show_progress(variant: str, row: dict[str, Any], num_steps: int) -> None:
    """Prints a line now and then: a log file has no use for a moving bar."""
    step = row["step"] + 1
    if step == 1 or step == num_steps or step % max(num_steps // 10, 1) == 0:
        sys.stderr.write(
            f"train {variant}: step {step}/{num_steps}  loss {row['loss']:.3f}  "
            f"{row['step_ms']:.0f} ms  imbalance {row['imbalance']:.2f}\n"
        )
