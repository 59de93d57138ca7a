"""The stage `profile-latency` on a tiny model: files, resuming, and what is measured."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.progress import Progress
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sbcore.attention.interface
import sbcore.model.own_forward
from sbcore.config.compute import AttentionConfig, LatencyGridConfig
from sbcore.config.lora import LoraConfig
from sbcore.config.stages import ProfileLatencyStage
from sbcore.config.training import ModelConfig, ModelShape
from sbcore.errors import SparseBalanceError
from sbcore.latency.as_trained import forward_of, train_config
from sbcore.latency.grid import grid_points, reference_point
from sbcore.latency.journal import Journal
from sbcore.latency.layer import LayerRuns
from sbcore.latency.measure import profile_latency
from sbcore.latency.model import TableLatencyModel
from sbcore.latency.table import KNOWN, GridPoint, MeasuredPoint, read_points
from sbcore.model.build import build_model, shape_config

SHAPE = ModelShape(hidden_size=32, intermediate_size=32, num_attention_heads=2)


def stage(**changed: object) -> ProfileLatencyStage:
    known: dict[str, object] = {
        "attention": AttentionConfig(block_size=16, top_k=2),
        "model": ModelConfig(shape=SHAPE),
        "latency": LatencyGridConfig(
            lengths=[32, 64, 128], top_k=[1, 2], point_seconds=1e-3, micro_batch_seconds=0.5
        ),
        "device": "cpu",
        "num_ranks": 1,
        "barrier": "step",
        "max_tokens": 128,
        "threads": 1,
        "activation_checkpointing": "none",
        "recompute_above_tokens": 0,
        "compile_layers": False,
        "layers_per_shard": 1,
        "keep_gathered": False,
    }
    return ProfileLatencyStage.model_validate(known | changed)


AMPLE = LatencyGridConfig(
    lengths=[32, 64, 128], top_k=[1, 2], point_seconds=1e-3, micro_batch_seconds=600, max_repeats=4
)
"""Time for every micro-batch: what fits into less depends on what else the machine does."""


def profile(out: Path, config: ProfileLatencyStage) -> dict[str, object]:
    with Progress(console=Console(file=StringIO())) as progress:
        return profile_latency(config, model_dir=None, vocab_size=64, out=out, progress=progress)


def test_the_profile_can_be_read_as_a_model(tmp_path: Path) -> None:
    head = profile(tmp_path, stage(latency=AMPLE))
    assert json.loads((tmp_path / "latency.json").read_text()) == head
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "latency.json",
        "latency.parquet",
        "latency.png",
    ]
    points = read_points(tmp_path / "latency.parquet")
    alone = {"attention", "dense", "layer", "ends", "own_block", "linear"}
    whole = {"floor", "optimizer", "micro_batch", "fixed", "covered"}
    assert {p.part for p in points} == alone | whole
    assert all(p.p20_ms <= p.median_ms <= p.p80_ms and p.n >= 2 for p in points)
    assert all(p.peak_gib is None for p in points)  # a CPU's memory is not measured
    linear, layer, ends, own_block = (
        next(p.median_ms for p in points if (p.part, p.length) == (part, 128))
        for part in ("linear", "layer", "ends", "own_block")
    )
    rest = max(layer - ends - own_block, 0.01 * layer)
    assert linear == pytest.approx(2 * rest + ends)
    assert (head["forward"], head["loss"]) == ("own", "chunked")
    checked = [p for p in points if p.part in ("micro_batch", *KNOWN) and p.held_out]
    assert head["error"]["num_micro_batches"] == len(checked) == 7
    assert head["error"]["num_points"] == sum(p.held_out for p in points if p.part == "attention")
    model = TableLatencyModel.read(tmp_path, block_size=16)
    assert model.num_layers == 2
    assert model.longest == 128


def test_an_interrupted_profile_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[GridPoint] = []
    make = LayerRuns.make

    def counted(self: LayerRuns, point: GridPoint) -> object:
        if len(made) == 5:
            raise KeyboardInterrupt
        if point.part != "reference":
            made.append(point)
        return make(self, point)

    monkeypatch.setattr(LayerRuns, "make", counted)
    with pytest.raises(KeyboardInterrupt):
        profile(tmp_path, stage())
    assert [p.name for p in tmp_path.iterdir()] == ["latency.points.jsonl"]
    assert len(Journal(tmp_path / "latency.points.jsonl", digest="?").points) == 0  # another one's
    made.clear()
    with pytest.raises(KeyboardInterrupt):  # the header was overwritten: all is measured again
        profile(tmp_path, stage())
    first = list(made)
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        profile(tmp_path, stage())
    assert not set(made) & set(first)


def test_points_of_another_configuration_are_not_taken_over(tmp_path: Path) -> None:
    point = MeasuredPoint("attention", 64, 1, 1, 1.0, 1.0, 1.0, 2, False, False, None)
    path = tmp_path / "points.jsonl"
    Journal(path, digest="a").add(point)
    with path.open("a") as file:
        file.write('{"part": "atten')  # cut off by a kill
    assert Journal(path, digest="a").points == [point]
    assert Journal(path, digest="b").points == []


def test_the_grid_has_each_point_once_and_holds_out_what_lies_between() -> None:
    grid = LatencyGridConfig(lengths=[64, 256, 1024], top_k=[1, 4, 16])
    config = stage(latency=grid, attention=AttentionConfig(block_size=32, top_k=4))
    points = grid_points(config, pack_tokens=0, seed=0)
    assert len(points) == len(set(points))
    attention = {(p.length, p.top_k) for p in points if p.part == "attention" and not p.held_out}
    assert attention == {
        *((64, k) for k in (1, 2)),
        *((256, k) for k in (1, 4, 8)),
        *((1024, k) for k in (1, 4, 16, 32)),
    }
    held_out = {(p.length, p.top_k) for p in points if p.part == "attention" and p.held_out}
    assert held_out == {*((128, k) for k in (2, 4)), *((512, k) for k in (2, 4, 8, 16))}
    assert points != grid_points(config, pack_tokens=0, seed=1)


def test_on_a_gpu_short_sequences_are_measured_in_packs_and_the_shortest_alone_too() -> None:
    points = [p for p in grid_points(stage(), pack_tokens=128, seed=0) if p.part == "attention"]
    packed = {(p.length, p.num_sequences) for p in points if not p.held_out}
    assert packed == {(32, 1), (32, 4), (64, 2), (128, 1)}


def test_packs_fill_a_gpu_and_hold_64_sequences_at_most() -> None:
    points = grid_points(stage(), pack_tokens=6000, seed=0)
    packed = {p.length: p.num_sequences for p in points if p.part == "dense"}
    assert packed == {32: 64, 64: 64, 128: 46}


def test_a_layers_rest_is_measured_with_queries_that_see_their_own_block() -> None:
    rest = [p for p in grid_points(stage(), pack_tokens=0, seed=0) if p.part in REST]
    assert sorted((p.part, p.length, p.top_k) for p in rest) == [
        (part, length, REST[part]) for part in sorted(REST) for length in (32, 64, 128)
    ]


REST = {"layer": 1, "ends": 0, "own_block": 1}


def test_the_clock_is_watched_at_the_middle_length() -> None:
    for top_k, expected in ((2, 2), (9, 4)):  # 64 tokens have 4 blocks
        found = reference_point(stage(attention=AttentionConfig(block_size=16, top_k=top_k)))
        assert (found.length, found.top_k, found.part) == (64, expected, "reference")


@pytest.mark.parametrize(
    ("max_tokens", "above", "again"), [(128, 100, (32, 64, 128)), (64, 100, (128,))]
)
def test_points_are_recomputed_as_the_micro_batch_is_that_plans_fill(
    max_tokens: int, above: int, again: tuple[int, ...]
) -> None:
    """Or as the sequence is, where it alone is longer than that."""
    config = stage(
        activation_checkpointing="full", recompute_above_tokens=above, max_tokens=max_tokens
    )
    points = grid_points(config, pack_tokens=0, seed=0)
    assert {p.length for p in points if p.part == "layer" and p.recompute} == set(again)


ARCHITECTURE = shape_config(SHAPE, vocab_size=64, max_tokens=64)


def layer_runs(**changed: object) -> LayerRuns:
    config = stage(attention=AttentionConfig(block_size=16, top_k=2), **changed)
    return LayerRuns(ARCHITECTURE, config, device=torch.device("cpu"), seed=0)


def grid_point(part: str, *, recompute: bool = False) -> GridPoint:
    return GridPoint(part, 64, 2, 1, held_out=False, recompute=recompute)


def test_one_layer_and_the_ends_are_built_and_no_more() -> None:
    runs = layer_runs()
    sizes = [p.numel() for p in runs.model.parameters()]
    whole = build_model(ARCHITECTURE, seed=0, dtype=torch.float32)
    ends = 64 * SHAPE.hidden_size + SHAPE.hidden_size
    layers = sum(p.numel() for p in whole.parameters()) - ends
    assert sum(sizes) == ends + layers // SHAPE.num_hidden_layers


@pytest.mark.parametrize("part", ["attention", "own_block", "layer", "ends"])
def test_every_part_runs_forward_and_backward_and_leaves_no_gradients(part: str) -> None:
    runs = layer_runs()
    counted = count_values(runs.make(grid_point(part)))
    assert counted > 0
    assert all(p.grad is None for p in runs.model.parameters())


ADAPTERS = ModelConfig(shape=SHAPE, lora=LoraConfig(rank=2, save="merged"))


@pytest.mark.parametrize(
    ("model", "compiled", "forward"),
    [
        (ModelConfig(shape=SHAPE), False, "own"),
        (ModelConfig(shape=SHAPE), True, "library"),
        (ADAPTERS, False, "own"),
    ],
)
def test_layers_run_by_the_forward_that_training_gives_them(
    model: ModelConfig, compiled: bool, forward: str
) -> None:
    config = stage(model=model, compile_layers=compiled)
    assert forward_of(ARCHITECTURE, model, train_config(config, weighs=False)) == forward
    if compiled:
        return  # compiling takes a minute
    runs = LayerRuns(ARCHITECTURE, config, device=torch.device("cpu"), seed=0)
    calls = Calls(sbcore.model.own_forward, "attend_layer")
    with calls:
        for part in ("ends", "layer"):
            runs.make(grid_point(part))()
    assert calls.number == (forward == "own")


def test_a_layer_is_the_ends_and_its_own_attention_and_what_is_left() -> None:
    calls = Calls(sbcore.attention.interface, "select_blocks")
    runs = layer_runs()
    with calls:
        for part, expected in (("ends", 0), ("layer", 1), ("ends", 1), ("own_block", 2)):
            runs.make(grid_point(part))()
            assert calls.number == expected, part


class Calls:
    """Counts the calls of a module's function while it is entered."""

    def __init__(self, module: ModuleType, name: str) -> None:
        self.module, self.name, self.number = module, name, 0
        self.function = getattr(module, name)

    def __enter__(self) -> None:
        setattr(self.module, self.name, self._count)

    def __exit__(self, *_: object) -> None:
        setattr(self.module, self.name, self.function)

    def _count(self, *args: Any, **words: Any) -> Any:
        self.number += 1
        return self.function(*args, **words)


def test_recomputation_runs_a_layer_and_its_attention_forward_twice() -> None:
    for part in ("attention", "layer"):
        products = {
            again: count_values(
                layer_runs(activation_checkpointing="full").make(grid_point(part, recompute=again))
            )
            for again in (False, True)
        }
        assert products[True] > products[False], part
    kept = layer_runs(activation_checkpointing="selective")
    plain = count_values(kept.make(grid_point("attention", recompute=False)))
    assert count_values(kept.make(grid_point("attention", recompute=True))) == plain


class CountValues(TorchDispatchMode):
    """Counts the values that operators make, forward and backward."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.total += sum(x.numel() for x in tree_leaves(made) if isinstance(x, torch.Tensor))
        return made


def count_values(run: Callable[[], object]) -> int:
    with CountValues() as counter:
        run()
    return counter.total


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SparseBalanceError, match="cuda"):
        profile(tmp_path, stage(device="cuda"))


def test_a_grid_with_nothing_between_its_lengths_is_refused_at_once(tmp_path: Path) -> None:
    short = LatencyGridConfig(lengths=[64], top_k=[1, 2])
    with pytest.raises(SparseBalanceError, match="only 0 points between them"):
        profile(tmp_path, stage(latency=short))
    assert list(tmp_path.iterdir()) == []


def test_a_configured_model_that_is_not_given_is_no_reason_to_measure_another(
    tmp_path: Path,
) -> None:
    configured = stage(model=ModelConfig(path="models/mine", shape=SHAPE))
    with pytest.raises(SparseBalanceError, match=r"^model.path = models/mine: --model is not give"):
        profile(tmp_path, configured)
    assert list(tmp_path.iterdir()) == []
