"""A table of another training is refused by the fact that differs, never used in silence."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from sbcore.artifacts import read_json, write_json
from sbcore.config.compute import AttentionConfig, LatencyGridConfig
from sbcore.config.lora import LoraConfig
from sbcore.config.stages import ProfileLatencyStage
from sbcore.config.training import ModelConfig, ModelShape, TrainConfig
from sbcore.errors import SparseBalanceError
from sbcore.latency.architecture import describe_shape, trained_shape
from sbcore.latency.made_for import how_trained, refuse_other, unstated
from sbcore.latency.measure import profile_latency
from sbcore.latency.model import TableLatencyModel
from sbcore.model.build import read_model_config, shape_config

MODEL = ModelConfig(shape=ModelShape(hidden_size=32, intermediate_size=32, num_attention_heads=2))
TABLE = Path("table.parquet")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    profile(folder, table=None)
    return folder / "latency.parquet"


def profile(out: Path, *, table: Path | None, **changed: object) -> dict[str, object]:
    grid = LatencyGridConfig(
        lengths=[32, 64, 128],
        top_k=[1, 2],
        point_seconds=1e-3,
        micro_batch_seconds=0.01,
        table=None if table is None else str(table),
    )
    known: dict[str, object] = {
        "attention": AttentionConfig(block_size=16, top_k=2),
        "model": MODEL,
        "latency": grid,
        "device": "cpu",
        "num_ranks": 1,
        "barrier": "step",
        "max_tokens": 128,
        "threads": 1,
        "activation_checkpointing": "full",
        "recompute_above_tokens": 64,
        "compile_layers": False,
        "layers_per_shard": 1,
        "keep_gathered": False,
    }
    config = ProfileLatencyStage.model_validate(known | changed)
    with Progress(console=Console(file=StringIO())) as progress:
        return profile_latency(config, model_dir=None, vocab_size=64, out=out, progress=progress)


def test_a_table_of_the_same_training_is_taken_over(measured: Path, tmp_path: Path) -> None:
    head = profile(tmp_path, table=measured)
    assert head["table"] == str(measured)
    points = (tmp_path / "latency.parquet").read_bytes()
    assert points == measured.read_bytes()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("activation_checkpointing", "selective"),
        ("recompute_above_tokens", 32),
        ("layers_per_shard", 2),
        ("keep_gathered", True),
        ("compile_layers", True),
        ("barrier", "micro"),
    ],
)
def test_a_table_of_another_training_is_refused(
    measured: Path, tmp_path: Path, key: str, value: object
) -> None:
    with pytest.raises(SparseBalanceError, match=f"{key} = .*here it is {value}: times of some"):
        profile(tmp_path, table=measured, **{key: value})
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_does_not_state_its_forward_is_refused_and_said_where_it_is_read(
    measured: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older = tmp_path / "older.parquet"
    older.write_bytes(measured.read_bytes())
    head = read_json(measured.with_suffix(".json"))
    write_json(older.with_suffix(".json"), {k: v for k, v in head.items() if k != "forward"})
    with pytest.raises(SparseBalanceError, match="forward is not stated, here it is own"):
        profile(tmp_path / "new", table=older)
    TableLatencyModel.read(measured, block_size=16)
    assert capsys.readouterr().err == ""
    TableLatencyModel.read(older, block_size=16)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{older.with_suffix('.json')}: forward: not stated")
    monkeypatch.setenv("RANK", "1")
    TableLatencyModel.read(older, block_size=16)
    assert capsys.readouterr().err == ""


def test_training_refuses_the_fact_that_differs() -> None:
    full = TrainConfig(activation_checkpointing="full", recompute_above_tokens=64)
    head = how_trained(MODEL, full)
    refuse_other(TABLE, head, head, of="training")
    refuse_other(TABLE, {"device": "an older header states nothing"}, head, of="training")
    for changed, told in (
        ({"keep_gathered": True}, "keep_gathered = False: the times of another training, where"),
        ({"recompute_above_tokens": 32}, "recompute_above_tokens = 64: .* it is 32"),
        ({"activation_checkpointing": "none"}, "activation_checkpointing = full: .* it is none"),
    ):
        other = how_trained(MODEL, full.model_copy(update=changed))
        with pytest.raises(SparseBalanceError, match=told):
            refuse_other(TABLE, head, other, of="training")
    assert how_trained(MODEL, TrainConfig())["recompute_above_tokens"] is None


@pytest.mark.parametrize("vocab_size", [None, 96])
def test_the_shape_that_is_trained_is_known_as_the_measured_one_is(vocab_size: int | None) -> None:
    model = MODEL.model_copy(
        update={"shape": MODEL.shape.model_copy(update={"vocab_size": vocab_size})}
    )
    measured = describe_shape(shape_config(model.shape, vocab_size=64, max_tokens=128))
    assert trained_shape(model, None, vocab_size=64) == measured


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_a_directorys_shape_is_the_measured_one_as_far_as_it_is_written(
    family: str, tmp_path: Path
) -> None:
    written = {
        "model_type": family,
        "num_hidden_layers": 3,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_attention_heads": 3,
        "vocab_size": 70,
    }
    write_json(tmp_path / "config.json", written | {"num_key_value_heads": None})
    shape = trained_shape(MODEL, tmp_path, vocab_size=64)
    write_json(tmp_path / "config.json", written)
    measured = describe_shape(read_model_config(tmp_path))
    assert measured | shape == measured
    assert measured.keys() - shape.keys() == {"head_dim", "num_key_value_heads"}
    refuse_other(TABLE, measured, shape, of="model")
    with pytest.raises(SparseBalanceError, match="hidden_size = 32: the times of another model, w"):
        refuse_other(TABLE, measured | {"hidden_size": 32}, shape, of="model")


def test_adapters_of_other_layers_have_other_times() -> None:
    seven = ModelConfig(lora=LoraConfig(rank=4))
    one = ModelConfig(lora=LoraConfig(rank=4, targets=["q_proj"]))
    two = ModelConfig(lora=LoraConfig(rank=4, targets=["v_proj", "q_proj"]))
    twice = ModelConfig(lora=LoraConfig(rank=4, targets=["q_proj", "v_proj", "v_proj"]))
    head, *trained = (how_trained(model, TrainConfig()) for model in (one, seven, two, twice))
    with pytest.raises(SparseBalanceError, match=r"lora_targets = \['q_proj'\]: the times of ano"):
        refuse_other(TABLE, head, trained[0], of="training")
    refuse_other(TABLE, trained[1], trained[2], of="training")


def test_targets_are_missed_only_where_there_are_adapters() -> None:
    older = {"forward": "library", "loss": "chunked", "lora_rank": 4}
    (line,) = unstated(TABLE, older)
    assert line.startswith(f"{TABLE}: lora_targets: not stated")
    assert list(unstated(TABLE, older | {"lora_rank": None})) == []


def test_a_table_without_adapters_need_not_state_their_targets(
    measured: Path, tmp_path: Path
) -> None:
    older = tmp_path / "older.parquet"
    older.write_bytes(measured.read_bytes())
    head = read_json(measured.with_suffix(".json"))
    assert head.pop("lora_targets", "missing") is None
    write_json(older.with_suffix(".json"), head)
    assert profile(tmp_path / "new", table=older)["lora_targets"] is None


@pytest.mark.parametrize("name", ["h100-qwen2.5-0.5b", "h100-qwen2.5-3b"])
def test_committed_tables_state_all_there_is_to_state(repository: Path, name: str) -> None:
    path = repository / f"config/latency/{name}.json"
    head = read_json(path)
    assert list(unstated(path, head)) == []
    assert trained_shape(MODEL, None, vocab_size=64).keys() <= head.keys()
