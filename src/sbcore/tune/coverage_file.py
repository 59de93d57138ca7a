"""``train/coverage.parquet``: what a training came to expect of coverage, for people and reports.

A row per layer, bucket of lengths and rung of the ladder; buckets that nothing fell into are left
out. Needs pyarrow alone.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sbcore.artifacts import replace_when_done
from sbcore.tune.coverage import CoverageModel

COVERAGE_SCHEMA = pa.schema(
    [
        ("layer", pa.int32()),
        ("max_tokens", pa.int64()),  # longest sequence of the bucket; it begins above half of it
        ("top_k", pa.int32()),
        ("coverage", pa.float64()),  # moving average, 0..1
        ("count", pa.int64()),  # sequences measured in the bucket
    ]
)


def write_coverage(model: CoverageModel, path: Path) -> None:
    """Writes the averages that are known; an untaught model gives a table without rows."""
    known = np.isfinite(model.curves).all(axis=-1)
    layer, bucket = np.nonzero(known)
    num_rungs = len(model.ladder)
    columns = {
        "layer": np.repeat(layer, num_rungs),
        "max_tokens": np.repeat(model.block_size * 2**bucket, num_rungs),
        "top_k": np.tile(model.ladder, len(layer)),
        "coverage": model.curves[known].ravel(),
        "count": np.repeat(model.counts[bucket], num_rungs),
    }
    table = pa.table(columns).cast(COVERAGE_SCHEMA)
    metadata = {"block_size": str(model.block_size), "ema_decay": str(model.ema_decay)}
    with replace_when_done(path) as part:
        pq.write_table(table.replace_schema_metadata(metadata), part)
