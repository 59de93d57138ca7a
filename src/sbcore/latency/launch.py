"""Starts the ranks that measure whole micro-batches, and takes back what they found.

Starting takes as long as a small grid does (imports, mostly), so on a GPU they are started before
it and wait, without touching a device, until they are told what to run.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sbcore.artifacts import read_json, write_json
from sbcore.config.stages import ProfileLatencyStage
from sbcore.errors import SparseBalanceError
from sbcore.latency.micro_batches import MicroBatch
from sbcore.latency.table import MeasuredPoint, read_point

WORK, RESULT, _LOG = "work.json", "result.json", "log.txt"
"""Files of the folder that we share with the ranks."""

DONE = "done"
"""What rank 0 says after each micro-batch."""


@dataclass(frozen=True)
class WholeModel:
    """What the ranks found."""

    points: list[MeasuredPoint]
    skipped: list[dict[str, Any]]
    """Micro-batches left out for want of memory."""
    model_gib: float | None
    """Weights, gradients and optimizer on each device; None on a CPU."""


@dataclass
class StartedRanks:
    """Ranks that wait for their work."""

    folder: Path
    num_ranks: int
    process: "subprocess.Popen[str]"

    def measure(
        self,
        config: ProfileLatencyStage,
        micro_batches: Sequence[MicroBatch],
        *,
        model_dir: Path | None,
        vocab_size: int | None,
        device_type: str,
        done: Callable[[], None],
    ) -> WholeModel:
        """Returns the micro-batches' times and peaks; `done` is called after each run of one.

        Raises:
            SparseBalanceError: The ranks failed; the message holds what they said last.
        """
        work = {
            "stage": config.model_dump(mode="json"),
            "micro_batches": [asdict(one) for one in micro_batches],
            "model_dir": None if model_dir is None else str(model_dir),
            "vocab_size": vocab_size,
            "device_type": device_type,
        }
        write_json(self.folder / WORK, work)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == DONE:
                done()
        code = self.process.wait()
        file = self.folder / RESULT
        result = read_json(file) if file.exists() else {}
        if "error" in result:
            raise SparseBalanceError(result["error"])
        if code != 0 or not result:
            raise SparseBalanceError(self._failure(code))
        points = [read_point(point) for point in result["points"]]
        return WholeModel(points, result["skipped"], result["model_gib"])

    def _failure(self, code: int) -> str:
        """Returns one line: what the ranks said last is in it."""
        text = (self.folder / _LOG).read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if "Error: " in line and "ChildFailed" not in line]
        said = (errors or lines or ["nothing"])[-1]
        return (
            f"latency: {self.num_ranks} ranks of whole micro-batches: exit code {code}: "
            f"{said[:300]}. start fewer ranks (topology.num_ranks) or lower topology.max_tokens."
        )


@contextmanager
def started_ranks(num_ranks: int, *, threads: int) -> Iterator[StartedRanks]:
    """Starts the ranks on this host; they end with the block."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with (
        TemporaryDirectory(prefix="sb-ranks-") as name,
        (Path(name) / _LOG).open("w", encoding="utf-8") as log,
    ):
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(num_ranks), "-m", "sbcore.latency.start", name),
        ]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as process:
            try:
                yield StartedRanks(Path(name), num_ranks, process)
            finally:
                process.terminate()
