"""From the first step or the newest checkpoint to the last step, with everything on disk."""

import gc
import math
import sys
from dataclasses import dataclass
from typing import Any

from sbcore.tracking import Tracker
from sbcore.train.account import tracked_numbers
from sbcore.train.checkpoint_folder import Cursor
from sbcore.train.checkpoints import Checkpoints
from sbcore.train.faults import NonFiniteCount
from sbcore.train.files import RunFiles
from sbcore.train.loop import Finished, Trainer
from sbcore.train.tables import MetricsFile
from sbcore.train.trace import traced
from sbcore.tune.coverage_file import write_coverage
from sbcore.tune.watch import CurveWatch


@dataclass
class TrainingRun:
    """A trainer with its checkpoints and files."""

    trainer: Trainer
    checkpoints: Checkpoints
    files: RunFiles
    tracker: Tracker
    faults: NonFiniteCount
    watch: CurveWatch
    metrics: MetricsFile | None = None

    def train(self, *, resume: bool) -> list[dict[str, Any]]:
        """Runs all steps that are left; returns the rows of metrics of all steps (rank 0)."""
        first = self._start(resume=resume)
        if self.files.rank == 0:
            self.metrics = MetricsFile(self.files.metrics, first_step=first)
        # Hundreds of thousands of objects of imported libraries never die; looking through them
        # all stopped rank 0 for 0.4 s in the middle of a step.
        gc.collect()
        gc.freeze()
        trainer, every = self.trainer, self.trainer.stage.train.checkpoint_every_steps
        num_steps = trainer.inputs.plan.num_steps
        for step in range(first, num_steps):
            with traced(step, trainer.stage.train.trace_steps, self.files.folder, self.files.rank):
                self._note(trainer.run_step(step))
            self.checkpoints.poll()
            if step + 1 == num_steps or (every and (step + 1) % every == 0):
                self._save(step + 1)
        self.checkpoints.close()
        if self.metrics is None:
            return []
        self.files.snapshot()(self.files.folder)
        write_coverage(self.trainer.tuner.coverage, self.files.folder / "coverage.parquet")
        return self.metrics.rows()

    def _start(self, *, resume: bool) -> int:
        """Returns the first step to run; restores the newest checkpoint if there is one."""
        newest = self.checkpoints.newest() if resume else None
        if newest is None:
            self.checkpoints.clear()
            return 0
        cursor, arrays = self.checkpoints.load(newest, seed=self.trainer.stage.seed)
        self.trainer.tuner.load(arrays)
        self.trainer.layout.load(arrays)
        self.faults.load(arrays)
        if self.files.rank == 0:
            self.files.load(newest)
            name = self.trainer.stage.variant
            sys.stderr.write(f"train {name}: resumed at step {cursor.step} from {newest}\n")
        return cursor.step

    def _note(self, finished: Finished | None) -> None:
        """Writes down a step that is over."""
        if finished is None:
            return
        facts, row = finished.facts, finished.row
        norm = facts.reports[0].grad_norm
        good = "" if math.isfinite(norm) else self.checkpoints.last_good(facts.step)
        losses = [report.loss for report in facts.reports]
        warning = self.faults.observe(facts.step, norm, losses=losses, last_good=good)
        if self.metrics is None:
            return
        if warning is not None:
            sys.stderr.write(f"WARNING: {warning}\n")
        tuner = self.trainer.tuner
        attention = self.trainer.stage.attention
        # What k0 covers may be left unmeasured, which is no news.
        beyond = facts.curves[:, facts.plan.lengths > attention.block_size * attention.top_k]
        self.watch.look(facts.step, beyond, measured=tuner.measures(facts.step))
        self.metrics.add(row)
        self.files.add(facts, self.trainer)
        self.tracker.metrics(tracked_numbers(row), step=row["step"])
        _show_progress(self.trainer.stage.variant, row, self.trainer.inputs.plan.num_steps)

    def _save(self, step: int) -> None:
        """Starts a checkpoint; the step before is read first, so that a resumed run knows it too.

        So what is decided next follows from the checkpoint alone. The time that this rank stood
        still counts in the next step.
        """
        self._note(self.trainer.drain())
        cursor = Cursor(step, num_ranks=self.trainer.ranks.world_size, finished=False)
        stood_still_ms = self.checkpoints.save_later(
            cursor,
            self.trainer.tuner.state() | self.trainer.layout.state() | self.faults.state(),
            write_files=self.files.for_checkpoint(),
        )
        self.trainer.clock.between("checkpoint", stood_still_ms)


def _show_progress(variant: str, row: dict[str, Any], num_steps: int) -> None:
    """Prints a line now and then: a log file has no use for a moving bar."""
    step = row["step"] + 1
    if step == 1 or step == num_steps or step % max(num_steps // 10, 1) == 0:
        loss = "not finite" if row["loss"] is None else f"{row['loss']:.3f}"
        sys.stderr.write(
            f"train {variant}: step {step}/{num_steps}  loss {loss}  "
            f"{row['step_ms']:.0f} ms  imbalance {row['imbalance']:.2f}\n"
        )
