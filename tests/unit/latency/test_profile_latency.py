"""The stage `profile-latency` on a tiny model: files, resuming, and what is measured."""

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.progress import Progress

from sbcore.config.compute import AttentionConfig, LatencyGridConfig
from sbcore.config.stages import ProfileLatencyStage
from sbcore.config.training import ModelConfig, ModelShape
from sbcore.errors import SparseBalanceError
from sbcore.latency.grid import GridPoint, grid_points
from sbcore.latency.journal import Journal
from sbcore.latency.measure import profile_latency
from sbcore.latency.model import TableLatencyModel
from sbcore.latency.runs import ModelRuns
from sbcore.latency.table import MeasuredPoint, read_points
from sbcore.model.build import build_model, shape_config

SHAPE = ModelShape(hidden_size=32, intermediate_size=32, num_attention_heads=2)


def stage(**changed: object) -> ProfileLatencyStage:
    known: dict[str, object] = {
        "attention": AttentionConfig(block_size=16, top_k=2),
        "model": ModelConfig(shape=SHAPE),
        "latency": LatencyGridConfig(lengths=[32, 64, 128], top_k=[1, 2], repeats=2),
        "device": "cpu",
        "threads": 1,
    }
    return ProfileLatencyStage.model_validate(known | changed)


def profile(out: Path, config: ProfileLatencyStage) -> dict[str, object]:
    with Progress(console=Console(file=StringIO())) as progress:
        return profile_latency(config, model_dir=None, vocab_size=64, out=out, progress=progress)


def test_the_profile_can_be_read_as_a_model(tmp_path: Path) -> None:
    head = profile(tmp_path, stage())
    assert json.loads((tmp_path / "latency.json").read_text()) == head
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "latency.json",
        "latency.parquet",
        "latency.png",
    ]
    points = read_points(tmp_path / "latency.parquet")
    assert {p.part for p in points} == {"attention", "linear", "floor", "optimizer", "micro_batch"}
    assert all(p.p20_ms <= p.median_ms <= p.p80_ms and p.n == 2 for p in points)
    assert head["error"]["num_points"] == sum(p.held_out for p in points if p.part == "attention")
    model = TableLatencyModel.read(tmp_path, block_size=16)
    assert model.num_layers == 2
    assert model.longest == 128


def test_an_interrupted_profile_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[GridPoint] = []
    make = ModelRuns.make

    def counted(self: ModelRuns, point: GridPoint) -> object:
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(point)
        return make(self, point)

    monkeypatch.setattr(ModelRuns, "make", counted)
    with pytest.raises(KeyboardInterrupt):
        profile(tmp_path, stage())
    assert [p.name for p in tmp_path.iterdir()] == ["latency.points.jsonl"]
    monkeypatch.setattr(ModelRuns, "make", lambda s, point: made.append(point) or make(s, point))
    profile(tmp_path, stage())
    assert len(made) == len(set(made)) == len(read_points(tmp_path / "latency.parquet"))


def test_points_of_another_configuration_are_not_taken_over(tmp_path: Path) -> None:
    point = MeasuredPoint("attention", 64, 1, 1, 1.0, 1.0, 1.0, 2, False)
    path = tmp_path / "points.jsonl"
    Journal(path, digest="a").add(point)
    with path.open("a") as file:
        file.write('{"part": "atten')  # cut off by a kill
    assert Journal(path, digest="a").points == [point]
    assert Journal(path, digest="b").points == []


def test_the_grid_has_each_point_once_and_holds_out_what_lies_between() -> None:
    grid = LatencyGridConfig(lengths=[64, 256, 1024], top_k=[1, 4, 16])
    points = grid_points(grid, block_size=32, top_k=4, seed=0)
    assert len(points) == len(set(points))
    attention = {(p.length, p.top_k) for p in points if p.part == "attention" and not p.held_out}
    assert attention == {
        *((64, k) for k in (1, 2)),
        *((256, k) for k in (1, 4, 8)),
        *((1024, k) for k in (1, 4, 16, 32)),
    }
    held_out = {(p.length, p.top_k) for p in points if p.part == "attention" and p.held_out}
    assert held_out == {*((128, k) for k in (2, 4)), *((512, k) for k in (2, 4, 8, 16))}
    assert points != grid_points(grid, block_size=32, top_k=4, seed=1)


def test_the_linear_part_leaves_out_attention_but_not_its_projections() -> None:
    config = shape_config(SHAPE, vocab_size=64, max_tokens=64)
    model = build_model(config, seed=0, dtype=torch.float32)
    runs = ModelRuns(model, AttentionConfig(block_size=16, top_k=2), seed=0)
    runs.make(GridPoint("linear", 64, 0, 1, held_out=False))()
    assert all(p.grad is not None for p in model.parameters())
    without = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    runs.make(GridPoint("micro_batch", 64, 2, 1, held_out=False))()
    assert not torch.equal(without, torch.cat([p.grad.flatten() for p in model.parameters()]))


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SparseBalanceError, match="cuda"):
        profile(tmp_path, stage(device="cuda"))


def test_a_grid_with_nothing_between_its_lengths_is_refused_at_once(tmp_path: Path) -> None:
    short = LatencyGridConfig(lengths=[64], top_k=[1, 2], repeats=1)
    with pytest.raises(SparseBalanceError, match="only 0 points between them"):
        profile(tmp_path, stage(latency=short))
    assert list(tmp_path.iterdir()) == []
