"""Reads a plan with numpy and pyarrow alone, for the trainer."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sbcore.artifacts import digest_file
from sbcore.errors import SparseBalanceError
from sbcore.plan.file import FORMAT_VERSION, PLAN_SCHEMA
from sbcore.types import Barrier, BatchPlan, IntArray


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One global batch; ``batch`` holds indices into the two arrays."""

    sample_ids: IntArray  # [N]
    lengths: IntArray  # [N] tokens
    batch: BatchPlan


class PlanFile:
    """The plan of a whole training, step by step.

    ``max_tokens`` is the cap that it kept, lowered where memory asked for it. ``order_digest``
    names the sequence of global batches (see `sampling_digest`): plans with equal ones can take
    over from each other after any step, whatever their ranks and balancers.

    Raises:
        SparseBalanceError: The file is missing or broken, of another format version, or made for
            another data set than that of the index.
    """

    def __init__(self, path: Path, *, index: Path) -> None:
        self._path = path
        table = self._read()
        metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        self._check(table, metadata, index)
        self.variant = metadata["variant"]
        self.num_ranks = int(metadata["num_ranks"])
        self.barrier = Barrier(metadata["barrier"])
        self.block_size = int(metadata["block_size"])
        self.max_tokens = int(metadata["max_tokens"])
        self.order_digest = metadata["order_digest"]
        self._columns = {
            name: table[name].to_numpy().astype(np.int64)
            for name in ("step", "rank", "micro_batch", "sample_id", "num_tokens")
        }
        changes = np.flatnonzero(np.diff(self._columns["step"])) + 1
        self._bounds = [0, *changes.tolist(), table.num_rows]

    @property
    def num_steps(self) -> int:
        """Steps of the training."""
        return len(self._bounds) - 1

    @cached_property
    def digest(self) -> str:
        """The sha256 of the file."""
        return digest_file(self._path)

    def step(self, number: int) -> StepPlan:
        """Returns a step's sequences, in the order of execution, and their layout.

        Raises:
            IndexError: There is no such step.
        """
        if not 0 <= number < self.num_steps:
            raise IndexError(f"step = {number}: the plan has {self.num_steps} steps")
        here = slice(self._bounds[number], self._bounds[number + 1])
        rank, micro_batch = self._columns["rank"][here], self._columns["micro_batch"][here]
        num_micro_batches = int(micro_batch.max()) + 1
        slot = rank * num_micro_batches + micro_batch
        ends = np.searchsorted(slot, np.arange(self.num_ranks * num_micro_batches + 1))
        packs = [tuple(range(start, end)) for start, end in pairwise(ends.tolist())]
        ranks = range(0, len(packs), num_micro_batches)
        return StepPlan(
            sample_ids=self._columns["sample_id"][here],
            lengths=self._columns["num_tokens"][here],
            batch=BatchPlan(tuple(tuple(packs[r : r + num_micro_batches]) for r in ranks)),
        )

    def _read(self) -> pa.Table:
        if not self._path.is_file():
            raise SparseBalanceError(f"{self._path}: missing. run the stage plan.")
        try:
            return pq.read_table(self._path)
        except (pa.ArrowInvalid, OSError) as error:
            raise self._refusal(str(error).splitlines()[0]) from None

    def _check(self, table: pa.Table, metadata: dict[str, str], index: Path) -> None:
        version = metadata.get("format_version", "none")
        if version != FORMAT_VERSION:
            raise self._refusal(f"format_version = {version}: not {FORMAT_VERSION}")
        if not table.schema.remove_metadata().equals(PLAN_SCHEMA) or table.num_rows == 0:
            raise self._refusal(f"columns = {table.schema.names}: not those of a plan")
        if not index.is_file():
            raise SparseBalanceError(f"{index}: missing. run the stage prepare.")
        if metadata["index_digest"] != digest_file(index):
            raise self._refusal(f"index_digest: the plan of another data set than {index}")

    def _refusal(self, what: str) -> SparseBalanceError:
        return SparseBalanceError(f"{self._path}: {what}. rerun the stage plan.")
