"""The configurations of committed tables measure what the ablation's trainings run."""

from pathlib import Path

import pytest

from sbcore.config.load import load_config
from sbcore.config.stages import ProfileLatencyStage, all_stages


@pytest.mark.parametrize(
    ("table", "training"),
    [("qwen2.5-0.5b", "h100"), ("qwen2.5-3b", "h100-3b")],
)
def test_a_table_is_measured_as_its_shape_is_trained(
    repository: Path, table: str, training: str
) -> None:
    measured = profile_stage(repository / f"config/latency/{table}.yaml")
    trained = profile_stage(repository / f"config/{training}.yaml")
    grid = {"latency"}
    assert measured.model_dump(exclude=grid) == trained.model_dump(exclude=grid)


def profile_stage(path: Path) -> ProfileLatencyStage:
    stage = dict(all_stages(load_config(path)))["profile_latency"]
    assert isinstance(stage, ProfileLatencyStage)
    return stage
