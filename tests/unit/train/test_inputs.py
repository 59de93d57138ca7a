import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from sbcore.artifacts import digest_file
from sbcore.config.lora import LoraConfig
from sbcore.config.schema import Config
from sbcore.config.stages import train_stage
from sbcore.config.training import ModelConfig, TrainConfig
from sbcore.errors import SparseBalanceError
from sbcore.latency.architecture import trained_shape
from sbcore.latency.made_for import how_trained
from sbcore.train.checkpoint_folder import Cursor, seal, step_folder
from sbcore.train.identity import run_identity
from sbcore.train.inputs import (
    _check_plan,
    _check_start,
    _check_steps,
    _check_table,
    _check_vocabulary,
    check_checkpoint,
)


def folders(tmp_path, *, has, needs):
    model, data = tmp_path / "model", tmp_path / "data"
    for folder, name, size in ((model, "config.json", has), (data, "summary.json", needs)):
        folder.mkdir()
        (folder / name).write_text(json.dumps({"vocab_size": size}))
    return model, data


def test_a_tokenizer_larger_than_the_models_vocabulary_is_refused(tmp_path):
    model, data = folders(tmp_path, has=100, needs=101)
    with pytest.raises(SparseBalanceError, match=r"vocab_size = 100: the data's tokenizer has 101"):
        _check_vocabulary(model, data)


def test_spare_rows_are_no_mistake(tmp_path):
    _check_vocabulary(*folders(tmp_path, has=152, needs=100))


def test_a_configuration_without_the_vocabularys_size_is_refused(tmp_path):
    model, data = folders(tmp_path, has=None, needs=100)
    with pytest.raises(SparseBalanceError, match=r"config\.json: vocab_size = None: "):
        _check_vocabulary(model, data)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"warmup_steps_unmeasured": 8},
            "train.warmup_steps_unmeasured = 8: the run has 8 steps, none is left to measure. "
            "use fewer or run more steps.",
        ),
        (
            {"trace_steps": [3, 8]},
            "train.trace_steps = [3, 8]: there is no step 8, the run has 8, counted from 0. "
            "name others.",
        ),
    ],
)
def test_what_would_be_missing_at_the_end_is_refused_at_the_start(settings, words):
    with pytest.raises(SparseBalanceError) as caught:
        _check_steps(TrainConfig(**settings), 8)
    assert str(caught.value) == words


def test_steps_that_are_there_are_measured_and_traced():
    _check_steps(TrainConfig(warmup_steps_unmeasured=7, trace_steps=[0, 7]), 8)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("variant", "dense", "variant = dense: the plan of another variant than sab"),
        ("num_ranks", 4, "num_ranks = 4: the plan of another topology, topology.num_ranks is 2"),
        ("barrier", "step", "barrier = step: the plan of another topology"),
    ],
)
def test_the_plan_of_another_training_is_refused(key, value, words):
    fits = {"variant": "sab", "num_ranks": 2, "barrier": "micro"}
    topology = SimpleNamespace(num_ranks=2, barrier="micro")
    stage = SimpleNamespace(variant="sab", topology=topology)
    _check_plan(SimpleNamespace(**fits), stage, Path("plan"))
    with pytest.raises(SparseBalanceError, match=rf"^plan/plan.parquet: {words}"):
        _check_plan(SimpleNamespace(**fits | {key: value}), stage, Path("plan"))


def test_a_configured_model_that_is_not_given_is_no_reason_for_random_weights():
    _check_start(ModelConfig(), None)
    _check_start(ModelConfig(), Path("base"))  # the demo's own
    _check_start(ModelConfig(path="models/mine"), Path("elsewhere/mine"))
    with pytest.raises(SparseBalanceError, match=r"^model.path = models/mine: --model is not"):
        _check_start(ModelConfig(path="models/mine"), None)


@pytest.fixture
def table(tmp_path):
    """Returns a function that says what of a stage's table is refused."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/summary.json").write_text(json.dumps({"vocab_size": 61}))
    arguments = SimpleNamespace(latency=tmp_path, data=tmp_path / "data", model=None)

    def check(model, head):
        (tmp_path / "latency.json").write_text(json.dumps(head))
        _check_table(SimpleNamespace(model=model, train=TrainConfig()), arguments)

    return check


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("num_layers", 3),
        ("hidden_size", 128),
        ("intermediate_size", 64),
        ("num_attention_heads", 2),
        ("num_key_value_heads", 2),
        ("head_dim", 32),
        ("vocab_size", 62),
        ("model_type", "llama"),
    ],
)
def test_the_table_of_another_model_is_refused(table, key, other):
    model = ModelConfig()
    table(model, trained_shape(model, None, vocab_size=61))
    table(model, {"device": "an older header states nothing"})
    with pytest.raises(SparseBalanceError, match=rf"json: {key} = {other}: the times of another m"):
        table(model, trained_shape(model, None, vocab_size=61) | {key: other})


def test_the_table_of_adapters_elsewhere_is_refused(table):
    one, all_of_them = (
        ModelConfig(lora=LoraConfig(**words)) for words in ({"targets": ["q_proj"]}, {})
    )
    table(one, how_trained(one, TrainConfig()))
    with pytest.raises(
        SparseBalanceError, match=r"lora_targets = \['q_proj'\]: the times of anoth"
    ):
        table(all_of_them, how_trained(one, TrainConfig()))


@pytest.fixture
def begun(tmp_path):
    """An interrupted training from the weights of a directory, and its words."""
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    stage = train_stage(Config(), "baseline")
    identity = run_identity(stage, "order", data_digest="data", weights_digest=digest_file(model))
    folder = step_folder(out / "checkpoints", 4)
    folder.mkdir(parents=True)
    seal(folder, Cursor(4, num_ranks=2, finished=False), identity)
    plan, store = SimpleNamespace(order_digest="order"), SimpleNamespace(digest="data")
    return stage, SimpleNamespace(plan=plan, store=store), SimpleNamespace(model=model, out=out)


def test_start_weights_that_changed_are_refused_before_any_rank_starts(begun):
    check_checkpoint(*begun)
    weights = begun[2].model / "model.safetensors"
    weights.write_bytes(b"other weights")
    with pytest.raises(
        SparseBalanceError, match=r"another training: model: model\.start_weights ="
    ):
        check_checkpoint(*begun)
    weights.write_bytes(b"weights")
    check_checkpoint(*begun)


def test_start_weights_are_not_read_where_nothing_is_gone_on_from(begun, monkeypatch):
    monkeypatch.setattr("sbcore.train.inputs.known_digest", None)
    other = SimpleNamespace(plan=SimpleNamespace(order_digest="other"), store=begun[1].store)
    with pytest.raises(SparseBalanceError, match="order_digest = order there, other here"):
        check_checkpoint(begun[0], other, begun[2])
    shutil.rmtree(begun[2].out)
    check_checkpoint(*begun)
    assert not begun[2].out.exists()
