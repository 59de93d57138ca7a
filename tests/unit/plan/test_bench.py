from pathlib import Path

import numpy as np
import pytest

from sbcore.latency.model import TableLatencyModel
from sbcore.plan import bench


def test_a_step_is_timed() -> None:
    assert 0 < bench._one_step(16, 8, repeats=3) < 1000


def test_a_small_epoch_is_planned_with_the_formula_as_a_table(tmp_path: Path) -> None:
    bench._write_index(tmp_path / "index.parquet", 200)
    bench._write_profile(tmp_path / "profile")
    seconds, gib = bench._plan_epoch(
        tmp_path / "index.parquet", tmp_path / "profile", tmp_path / "plan"
    )
    assert seconds < 60
    assert gib > 0.01
    assert (tmp_path / "plan" / "plan.parquet").is_file()
    table = TableLatencyModel.read(tmp_path / "profile", block_size=256)
    at = np.array([24000]), np.array([32])
    assert table.attention_ms(*at) == pytest.approx(bench._LAYERS.attention_ms(*at), rel=0.05)
