"""The file of a plan, ``plan.parquet``: one row per sequence, in the order of execution.

Its key-value metadata says what it was made for, so that a reader can refuse another data set.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sbcore.artifacts import replace_when_done
from sbcore.types import BatchPlan, FloatArray, IntArray

PLAN, SUMMARY = "plan.parquet", "summary.json"

FORMAT_VERSION = "3"

PLAN_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("rank", pa.int32()),
        ("micro_batch", pa.int32()),
        ("position", pa.int32()),
        ("sample_id", pa.int64()),
        ("num_tokens", pa.int32()),
        ("predicted_ms", pa.float64()),
    ]
)


@dataclass(slots=True)
class PlanRows:
    """Rows of a plan, gathered step by step."""

    columns: dict[str, list[np.ndarray[tuple[int], np.dtype[np.generic]]]] = field(
        default_factory=lambda: {name: [] for name in PLAN_SCHEMA.names}
    )

    def add(
        self, step: int, batch: BatchPlan, *, ids: IntArray, lengths: IntArray, times: FloatArray
    ) -> None:
        """Appends a step: ids, lengths and predicted times [N] of its sequences."""
        places = [
            (rank, m, position, sequence)
            for rank, packs in enumerate(batch.micro_batches)
            for m, pack in enumerate(packs)
            for position, sequence in enumerate(pack)
        ]
        rank, micro_batch, position, sequence = np.array(places, dtype=np.int32).T
        values = {
            "step": np.full(len(places), step, dtype=np.int32),
            "rank": rank,
            "micro_batch": micro_batch,
            "position": position,
            "sample_id": ids[sequence],
            "num_tokens": lengths[sequence].astype(np.int32),
            "predicted_ms": times[sequence],
        }
        for name, value in values.items():
            self.columns[name].append(value)

    def write(self, path: Path, metadata: dict[str, str]) -> None:
        """Writes all rows with the metadata, whole or not at all."""
        arrays = {name: np.concatenate(parts) for name, parts in self.columns.items()}
        schema = PLAN_SCHEMA.with_metadata({"format_version": FORMAT_VERSION} | metadata)
        with replace_when_done(path) as part:
            pq.write_table(pa.table(arrays, schema=schema), part)
