import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from sbcore.artifacts import digest_file
from sbcore.config.load import parse_config
from sbcore.config.lora import LoraConfig
from sbcore.config.stages import TrainStage, train_stage
from sbcore.errors import SparseBalanceError
from sbcore.train.identity import (
    FREE_KEYS,
    UNREAD,
    RunIdentity,
    digest_weights,
    known_digest,
    run_identity,
)
from sbcore.train.ranks import Ranks

METHOD = {
    "learning_rate",
    "warmup_share",
    "decay_share",
    "weight_decay",
    "betas",
    "max_grad_norm",
}


VARIANTS = {"baseline": {}, "dst": {"tuner": {"kind": "anchor"}}}


def identity(order="order", data="data", weights="weights", variant="dst", **sections):
    stage = train_stage(parse_config({"variants": VARIANTS} | sections, []), variant)
    return run_identity(stage, order, data_digest=data, weights_digest=weights)


def test_every_training_key_is_either_of_the_method_or_free():
    keys = set(TrainStage.model_fields["train"].annotation.model_fields)
    assert keys == METHOD | set(FREE_KEYS["train"])


@pytest.mark.parametrize("section", FREE_KEYS)
def test_free_keys_exist(section):
    fields = set(TrainStage.model_fields[section].annotation.model_fields)
    if section == "model":
        fields |= {f"lora.{name}" for name in LoraConfig.model_fields}
    assert set(FREE_KEYS[section]) <= fields


def test_ranks_layout_and_machine_do_not_count():
    here = identity(
        topology={"num_ranks": 7, "barrier": "micro", "max_tokens": 99},
        attention={"backend": "reference"},
        train={"activation_checkpointing": "full", "keep_checkpoints": 9},
    )
    assert here.difference(identity()) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"order": "other"}, "data order: order_digest = order there, other here"),
        ({"data": "other"}, "data order: data_digest = data there, other here"),
        ({"weights": "other"}, "model: model.start_weights = weights there, other here"),
        ({"seed": 8}, "method: seed = 0 there, 8 here"),
        ({"train": {"learning_rate": 1.0}}, "train.learning_rate = 0.002 there, 1.0 here"),
        ({"attention": {"top_k": 3}}, "method: attention.top_k = 8 there, 3 here"),
        ({"model": {"shape": {"hidden_size": 8}}}, "shape.hidden_size = 64 there, 8 here"),
        ({"model": {"lora": {}}}, "model: model.lora.alpha = None there, 64 here"),
        ({"variant": "baseline"}, "method: tuner."),
    ],
)
def test_a_difference_is_said_in_words(changed, words):
    assert words in identity(**changed).difference(identity())


def test_rank_0_reads_the_weights_for_all(monkeypatch):
    def broadcast(values, src, group):
        assert (values, src) == ([None, None], 0)
        values[0] = "by rank 0"

    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "broadcast_object_list", broadcast)
    one = Ranks(1, 2, torch.device("cpu"), None)
    assert digest_weights(Path("models/nowhere"), Path("nowhere"), one) == "by rank 0"


@pytest.fixture
def weights(tmp_path):
    """A model directory and the folder of a training."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.safetensors").write_bytes(b"weights")
    (tmp_path / "out").mkdir()
    return tmp_path / "model", tmp_path / "out"


def test_weights_that_did_not_change_are_read_once(weights, monkeypatch):
    first = known_digest(*weights)
    assert first == digest_file(weights[0])
    monkeypatch.setattr("sbcore.train.identity.digest_file", None)
    assert known_digest(*weights) == first


def test_other_bytes_of_the_same_size_and_time_are_other_weights(weights):
    first, file = known_digest(*weights), weights[0] / "model.safetensors"
    before = file.stat()
    time.sleep(0.02)  # clocks of file systems tick every few milliseconds
    file.write_bytes(b"another")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert known_digest(*weights) == digest_file(weights[0]) != first


@pytest.mark.parametrize(
    "change",
    [
        lambda model: (model / "more.safetensors").write_bytes(b""),
        lambda model: (model / "model.safetensors").unlink(),
        lambda model: (model / "model.safetensors").rename(model / "other.safetensors"),
    ],
)
def test_other_files_are_other_weights(weights, change):
    first = known_digest(*weights)
    change(weights[0])
    assert known_digest(*weights) == digest_file(weights[0]) != first


def test_weights_that_moved_or_were_touched_are_the_same(weights):
    first, file = known_digest(*weights), weights[0] / "model.safetensors"
    file.touch()
    assert known_digest(*weights) == first
    moved = weights[0].rename(weights[0].with_name("moved"))
    assert known_digest(moved, weights[1]) == first


def test_a_note_that_cannot_be_written_is_a_line(weights):
    weights[1].rmdir()
    weights[1].write_text("a file where the folder should be")
    with pytest.raises(SparseBalanceError, match=r"^[^\n]*: cannot be read or written\. make room"):
        known_digest(*weights)


def test_a_directory_is_known_by_its_weights_not_its_place():
    here = identity(model={"path": "here"})
    assert here.difference(identity(model={"path": "there"})) is None
    assert not [key for key in here.parts["model"] if "shape" in key]


def test_what_is_left_at_the_end_may_change_on_the_way():
    here = identity(model={"lora": {"save": "adapter"}, "save_dtype": "bfloat16"})
    there = identity(model={"lora": {"save": "merged"}})
    assert here.difference(there) is None
    older = there.parts["model"] | {"model.lora.save": "both"}
    older = RunIdentity(there.parts | {"model": older}, there.settings)
    assert here.difference(older) is None
    assert "rank = 32 there, 4 here" in identity(model={"lora": {"rank": 4}}).difference(there)


def test_start_weights_that_were_not_read_are_as_good_as_any():
    here = identity(weights=UNREAD)
    assert here.difference(identity(weights="weights")) is None
    assert "seed = 1 there, 0 here" in here.difference(identity(weights="weights", seed=1))


LORA = {"lora": {}}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"model": LORA | {"save_dtype": "float32"}}, True),
        ({"model": {"lora": {"save": "adapter"}}}, True),
        ({"model": {"lora": {"save": "adapter"}, "save_dtype": "bfloat16"}}, True),
        ({"model": LORA}, False),  # the same once more: it is asked for anew
        ({"model": {"lora": {"save": "adapter", "rank": 4}}}, False),
        ({"model": {"lora": {"save": "adapter"}, "path": "elsewhere"}}, False),
        ({"model": {"lora": {"save": "adapter"}}, "seed": 1}, False),
        ({"model": {"lora": {"save": "adapter"}}, "topology": {"num_ranks": 3}}, False),
        ({"model": {"lora": {"save": "adapter"}}, "train": {"compile_layers": True}}, False),
        ({"model": {"lora": {"save": "adapter"}}, "weights": "other"}, False),
        ({"model": {"lora": {"save": "adapter"}}, "order": "other"}, False),
    ],
)
def test_only_a_finished_training_with_no_other_change_is_written_in_another_way(changed, expected):
    finished = identity(model=LORA)
    assert identity(**changed).differs_in_writing(finished) is expected
    assert not identity(**changed).differs_in_writing(RunIdentity(finished.parts, {}))  # older
