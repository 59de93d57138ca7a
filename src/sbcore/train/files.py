"""What a training leaves on disk while it runs, by name."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sbcore.artifacts import replace_when_done
from sbcore.train.account import StepFacts, ledger_rows, span_rows
from sbcore.train.loop import Trainer
from sbcore.train.tables import Table

TABLES = ("ledger.parquet", "micro_batches.parquet")
METRICS = "metrics.jsonl"


@dataclass
class RunFiles:
    """The files of a run; only rank 0 writes."""

    folder: Path
    rank: int
    ledger: Table = field(default_factory=Table)
    spans: Table = field(default_factory=Table)

    @property
    def model(self) -> Path:
        """The trained model, a Hugging Face directory."""
        return self.folder / "model"

    @property
    def metrics(self) -> Path:
        """Numbers of every step, a line each."""
        return self.folder / METRICS

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
        self.spans.add(span_rows(facts, trainer.inputs.latency, top_k=top_k))

    def snapshot(self) -> Callable[[Path], None]:
        """Returns what writes the tables as they are now into a folder, at any later time."""
        tables = {name: table.snapshot() for name, table in self._tables()}

        def write(folder: Path) -> None:
            for name, table in tables.items():
                table.write(folder / name)

        return write

    def for_checkpoint(self) -> Callable[[Path], None]:
        """Returns what writes tables and metrics into a checkpoint, at any later time.

        A host that loses its power may keep a checkpoint, which is synchronised, and lose lines of
        the metrics. Lines of later steps do no harm: resuming leaves them out.
        """
        write_tables = self.snapshot()

        def write(folder: Path) -> None:
            write_tables(folder)
            shutil.copyfile(self.metrics, folder / METRICS)

        return write

    def load(self, folder: Path) -> None:
        """Takes over what a checkpoint holds; those of earlier versions hold no metrics."""
        for name, table in self._tables():
            table.load(folder / name)
        if (folder / METRICS).is_file():
            with replace_when_done(self.metrics) as part:
                shutil.copyfile(folder / METRICS, part)

    def _tables(self) -> list[tuple[str, Table]]:
        return list(zip(TABLES, (self.ledger, self.spans), strict=True))
