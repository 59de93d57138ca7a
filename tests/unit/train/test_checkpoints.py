"""Checkpoints of one rank; several ranks stand in tests/distributed/test_resume.py."""

import json
import os
import pickle
import shutil
import threading
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from sbcore.config.schema import Config
from sbcore.config.stages import train_stage
from sbcore.config.training import ModelConfig
from sbcore.errors import SparseBalanceError
from sbcore.train.checkpoint_folder import Cursor, mark_finished
from sbcore.train.checkpoints import Checkpoints
from sbcore.train.identity import run_identity
from sbcore.train.randomness import draw_random_state
from sbcore.train.ranks import Ranks

SEED = 3


@pytest.fixture(scope="module", autouse=True)
def world():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Training:
    """A model of two layers, the first frozen, and its checkpoints."""

    def __init__(self, folder, *, width=5, order="order", keep=2, save_dtype=None):
        torch.manual_seed(SEED)
        self.model = nn.Sequential(nn.Linear(4, width), nn.GELU(), nn.Linear(width, 3))
        self.model[0].requires_grad_(False)
        ranks = Ranks(0, 1, torch.device("cpu"), dist.group.WORLD)
        fully_shard(self.model, mesh=ranks.mesh())
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=0.1, fused=True)
        config = Config(model=ModelConfig(save_dtype=save_dtype))
        stage = train_stage(config, "baseline")
        self.checkpoints = Checkpoints(
            folder,
            model=self.model,
            optimizer=self.optimizer,
            ranks=ranks,
            identity=run_identity(stage, order, data_digest="data", weights_digest="random"),
            keep=keep,
        )
        self.steps = 0

    def train(self, num_steps):
        for _ in range(num_steps):
            self.model(torch.randn(6, 4)).square().mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.steps += 1
        return self

    def save(self, *, finished=False):
        cursor = Cursor(self.steps, num_ranks=1, finished=finished)
        arrays = {"average": np.full(2, float(self.steps))}
        return self.checkpoints.save_later(cursor, arrays, write_files=write_note)

    def load(self, path=None):
        return self.checkpoints.load(path or self.checkpoints.newest(), seed=SEED)

    def values(self):
        tensors = [p.full_tensor() for p in self.model.parameters() if p.requires_grad]
        for state in self.optimizer.state.values():
            tensors += [getattr(t, "full_tensor", t.clone)() for t in state.values()]
        return [t.detach().clone() for t in tensors]


def write_note(folder):
    (folder / "note.txt").write_text("of rank 0")


def equal(ours, theirs):
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


def saved(folder, *, steps=(1, 2), finished=False):
    """Leaves checkpoints after so many steps; returns the newest and the training's values."""
    training, values = Training(folder), []
    for step in steps:
        training.train(step - training.steps).save(finished=finished)
        values.append(training.values())
    training.checkpoints.close()
    return folder / f"step-{steps[-1]:08d}", values


def test_weights_moments_arrays_files_and_random_state_come_back(tmp_path):
    training = Training(tmp_path).train(3)
    training.save()
    training.checkpoints.close()
    values, drawn = training.values(), torch.rand(4)
    other = Training(tmp_path)
    path = other.checkpoints.newest()
    cursor, arrays = other.load(path)
    assert torch.equal(torch.rand(4), drawn)
    assert equal(other.values(), values)
    assert cursor == Cursor(3, num_ranks=1, finished=False)
    assert arrays["average"].tolist() == [3.0, 3.0]
    assert (path / "note.txt").read_text() == "of rank 0"


def test_another_number_of_ranks_draws_anew_from_seed_step_and_rank(tmp_path, capsys):
    training = Training(tmp_path).train(3)
    cursor = Cursor(3, num_ranks=2, finished=False)
    training.checkpoints.save_later(cursor, {}, write_files=write_note)
    training.checkpoints.close()
    draw_random_state(SEED, step=3, rank=0)
    expected = torch.rand(4)
    Training(tmp_path).load()
    assert torch.equal(torch.rand(4), expected)
    assert "was written by 2 ranks, now 1: random states" in capsys.readouterr().err


def test_a_rank_that_was_not_there_draws_its_own_and_leaves_talking_to_the_first(tmp_path, capsys):
    path, _ = saved(tmp_path, steps=(3,))
    draw_random_state(SEED, step=3, rank=1)
    expected, training = torch.rand(4), Training(tmp_path)
    training.checkpoints.ranks = replace(training.checkpoints.ranks, rank=1)
    training.load(path)
    assert torch.equal(torch.rand(4), expected)
    assert capsys.readouterr().err == ""


def test_every_seed_step_and_rank_draws_its_own():
    drawn = set()
    for words in product((0, 1), repeat=3):
        draw_random_state(words[0], step=words[1], rank=words[2])
        drawn.add(float(torch.rand(1, dtype=torch.float64)))
    assert len(drawn) == 8


def test_frozen_weights_are_left_to_the_start_model(tmp_path):
    from sbcore.train.restore import read_index

    path, _ = saved(tmp_path)
    names = {name for name in read_index(path).state_dict_metadata if name.startswith("model.")}
    assert names == {"model.2.weight", "model.2.bias"}


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    training, released = Training(tmp_path).train(1), threading.Event()
    monkeypatch.setattr(training.checkpoints._copy, "wait", lambda: released.wait(30))
    values, average = training.values(), np.ones(2)
    cursor = Cursor(1, num_ranks=1, finished=False)
    training.checkpoints.save_later(cursor, {"average": average}, write_files=write_note)
    average += 1.0
    training.train(2)
    training.checkpoints.poll()
    assert not list(tmp_path.glob("step-*"))
    assert not equal(training.values(), values)
    released.set()
    training.checkpoints.close()
    other = Training(tmp_path)
    arrays = other.load()[1]
    assert equal(other.values(), values), "the copy changed with the training"
    assert arrays["average"].tolist() == [1.0, 1.0]


def test_what_is_being_written_is_waited_for_by_any_thread(tmp_path, monkeypatch):
    training, released = Training(tmp_path).train(1), threading.Event()
    assert training.checkpoints.being_written() is None
    monkeypatch.setattr(training.checkpoints._copy, "wait", lambda: released.wait(30))
    training.save()
    writing = training.checkpoints.being_written()
    released.set()
    wait([writing])
    assert training.checkpoints.last_good(1).endswith("step-00000001")
    assert training.checkpoints.being_written() is None
    training.checkpoints.close()


def test_what_training_itself_waits_for_is_waited_for_by_another_thread(tmp_path, monkeypatch):
    training, released, asked = Training(tmp_path).train(1), threading.Event(), threading.Event()
    monkeypatch.setattr(training.checkpoints._copy, "wait", lambda: released.wait(30))
    training.save()
    writing = training.checkpoints._writing[1]
    result = writing.result
    monkeypatch.setattr(writing, "result", lambda: asked.set() or result())
    closing = threading.Thread(target=training.checkpoints.close)
    closing.start()
    assert asked.wait(30)
    writing = training.checkpoints.being_written()
    released.set()
    wait([writing])
    assert training.checkpoints.last_good(1).endswith("step-00000001")
    closing.join()


def test_a_finished_checkpoint_is_taken_note_of(tmp_path):
    training = Training(tmp_path).train(1)
    training.save()
    training.checkpoints._writing[1].result()
    training.checkpoints.poll()
    assert training.checkpoints._writing is None
    assert training.checkpoints.last_good(1).endswith("step-00000001")
    assert training.checkpoints.last_good(0) == "none"


def test_the_last_good_checkpoint_is_the_newest_of_those_before(tmp_path):
    saved(tmp_path, steps=(2, 4))
    checkpoints = Training(tmp_path).checkpoints
    found = [Path(checkpoints.last_good(before)).name for before in range(1, 6)]
    assert found == ["none", *["step-00000002"] * 2, *["step-00000004"] * 2]


def test_only_the_newest_are_kept(tmp_path):
    saved(tmp_path, steps=(1, 2, 3, 4))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


def test_a_last_write_that_fails_is_said_and_leaves_the_model_to_be_written(tmp_path, capsys):
    training = Training(tmp_path).train(1)

    def full(folder):
        raise OSError(28, "No space left on device")

    cursor = Cursor(1, num_ranks=1, finished=True)
    training.checkpoints.save_later(cursor, {}, write_files=full)
    training.checkpoints.close()
    said = capsys.readouterr().err
    assert "step-00000001: not written: OSError: [Errno 28] No space left on device" in said
    assert "last good: none" in said
    assert not list(tmp_path.iterdir())
    mark_finished(tmp_path, 1, training.checkpoints.identity)  # nothing to mark


def test_a_torn_checkpoint_of_a_later_step_does_not_outlive_a_good_one(tmp_path):
    newest, _ = saved(tmp_path, steps=(2, 6))
    cut(newest / ".metadata")
    training = Training(tmp_path, keep=1)
    training.load()
    training.steps = 2
    training.train(2).save()
    training.checkpoints.close()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]


def test_a_checkpoint_written_again_takes_the_place_of_the_torn_one(tmp_path):
    newest, _ = saved(tmp_path, steps=(2, 4))
    cut(newest / ".metadata")
    training = Training(tmp_path)
    training.load()
    training.steps = 2
    training.train(2).save()
    training.checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]
    assert Training(tmp_path).checkpoints.newest() == newest


def test_a_last_checkpoint_is_marked_when_the_model_was_saved_too(tmp_path):
    saved(tmp_path)
    mark_finished(tmp_path, 2, Training(tmp_path).checkpoints.identity)
    assert Training(tmp_path).checkpoints.newest() is None


def test_a_file_where_checkpoints_should_be_is_refused_before_the_first_step(tmp_path):
    place = tmp_path / "checkpoints"
    place.write_text("")
    checkpoints = Training(place).checkpoints
    for call in (checkpoints.newest, checkpoints.clear):
        with pytest.raises(SparseBalanceError, match=f"^{place}: not a folder that may be read"):
            call()


@pytest.mark.parametrize("denied", [os.R_OK, os.W_OK, os.X_OK], ids=["read", "write", "enter"])
def test_a_folder_that_may_not_be_read_is_no_empty_one(tmp_path, monkeypatch, denied):
    """Its listing is empty without an error; who runs the tests may read every folder, maybe."""
    saved(tmp_path)
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != tmp_path or not mode & denied
    )
    with pytest.raises(SparseBalanceError, match=f"^{tmp_path}: not a folder that may be read"):
        Training(tmp_path).checkpoints.newest()


def test_what_cannot_be_removed_is_not_left_silently(tmp_path, monkeypatch):
    saved(tmp_path)

    def busy(path, *words, **more):
        raise OSError(16, "Device or resource busy", str(path))

    monkeypatch.setattr(shutil, "rmtree", busy)
    with pytest.raises(SparseBalanceError, match=f"^{tmp_path}: Device or resource busy: older"):
        Training(tmp_path).checkpoints.clear()


def test_what_a_killed_run_was_writing_is_removed(tmp_path):
    saved(tmp_path)
    shutil.copytree(tmp_path / "step-00000002", tmp_path / ".step-00000003.part")
    assert Training(tmp_path).checkpoints.newest().name == "step-00000002"
    assert not list(tmp_path.glob(".*"))


def test_a_finished_training_starts_anew(tmp_path):
    saved(tmp_path, finished=True)
    training = Training(tmp_path)
    assert training.checkpoints.newest() is None
    training.checkpoints.clear()
    assert not list(tmp_path.iterdir())


def test_a_finished_training_goes_on_where_its_model_is_to_be_written_in_another_way(tmp_path):
    path, _ = saved(tmp_path)
    mark_finished(tmp_path, 2, Training(tmp_path).checkpoints.identity)
    assert Training(tmp_path).checkpoints.newest() is None
    assert Training(tmp_path, save_dtype="bfloat16", order="another").checkpoints.newest() is None
    other = Training(tmp_path, save_dtype="bfloat16").checkpoints
    assert other.newest() == path
    # Should that fail, the older model may be gone: neither way trains again.
    assert Training(tmp_path).checkpoints.newest() == path
    assert other.newest() == path
    mark_finished(tmp_path, 2, other.identity)
    assert other.newest() is None


def test_another_model_is_refused_by_the_tensors_name(tmp_path):
    path, _ = saved(tmp_path)
    with pytest.raises(SparseBalanceError) as caught:
        Training(tmp_path, width=7).load(path)
    assert str(caught.value) == (
        f"{path}: model.2.weight = [3, 5] there, [3, 7] here: a checkpoint of another model. "
        "restore model.* in the configuration, or delete the folder to start anew."
    )


def test_another_training_is_refused_by_what_differs(tmp_path):
    path, _ = saved(tmp_path)
    with pytest.raises(SparseBalanceError) as caught:
        Training(tmp_path, order="another").checkpoints.newest()
    assert str(caught.value) == (
        f"{path}: a checkpoint of another training: data order: order_digest = order there, "
        f"another here. restore the setting, or delete {tmp_path} to start anew."
    )


def cut(path):
    os.truncate(path, path.stat().st_size - 10)


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"more")


TEARS = {
    "torn: arrays.npz has": lambda path: lengthen(path / "arrays.npz"),
    "torn: __0_0.distcp is missing": lambda path: (path / "__0_0.distcp").unlink(),
    "torn: __0_0.distcp has": lambda path: cut(path / "__0_0.distcp"),
    "torn: .metadata has": lambda path: cut(path / ".metadata"),
    "torn: arrays.npz is missing": lambda path: (path / "arrays.npz").unlink(),
    "torn: cursor.json is missing or broken": lambda path: cut(path / "cursor.json"),
}


@pytest.mark.parametrize("words", TEARS)
def test_a_torn_checkpoint_is_passed_over_loudly(tmp_path, capsys, words):
    path, values = saved(tmp_path)
    TEARS[words](path)
    training = Training(tmp_path)
    assert training.load()[0].step == 1
    assert equal(training.values(), values[0])
    line = capsys.readouterr().err
    assert f"WARNING: {path}: {words}" in line
    assert "going back to the checkpoint before it" in line


@pytest.mark.parametrize(
    "value",
    [
        b"[]",
        b"\x8c",
        b'{"cursor": 5}',
        b'{"format_version": 2, "cursor": {"step": 2}}',
        b'{"format_version": 2, "cursor": {"step": 2}, "files": {}, "identity": []}',
        b'{"format_version": 2, "cursor": {}, "files": {}, "identity": {}, "settings": 1}',
    ],
)
def test_a_cursor_that_is_none_is_torn(tmp_path, capsys, value):
    path, _ = saved(tmp_path)
    (path / "cursor.json").write_bytes(value)
    assert Training(tmp_path).load()[0].step == 1
    assert f"{path}: torn: cursor.json is missing or broken." in capsys.readouterr().err


@pytest.mark.parametrize("spoil", [lambda b: bytes(x ^ 0xFF for x in b), lambda b: b"N."])
def test_an_index_of_changed_bytes_is_one_line(tmp_path, spoil):
    path, _ = saved(tmp_path)
    index = path / ".metadata"
    index.write_bytes(spoil(index.read_bytes()))
    with pytest.raises(SparseBalanceError, match="not the index of a checkpoint") as caught:
        Training(tmp_path).load(path)
    assert "\n" not in str(caught.value)


def test_changed_bytes_within_an_index_are_refused(tmp_path):
    path, _ = saved(tmp_path)
    index = path / ".metadata"
    whole = index.read_bytes()
    for place in range(20, 200, 7):  # a changed string is an error of another kind
        index.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with suppress(SparseBalanceError):
            Training(tmp_path).load(path)


def test_when_all_are_torn_nothing_is_started(tmp_path):
    saved(tmp_path)
    for path in tmp_path.iterdir():
        (path / "cursor.json").unlink()
    with pytest.raises(
        SparseBalanceError, match=r"no checkpoint can be gone on from: .*torn.*delete"
    ):
        Training(tmp_path).checkpoints.newest()


def test_bytes_that_are_no_tensors_are_refused(tmp_path):
    path, _ = saved(tmp_path)
    file = path / "__0_0.distcp"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(SparseBalanceError, match=f"{path}: cannot be read: rank 0: "):
        Training(tmp_path).load()


def test_bytes_that_are_no_arrays_are_refused(tmp_path):
    path, _ = saved(tmp_path)
    file = path / "arrays.npz"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(SparseBalanceError, match=f"{file}: cannot be read: .* delete {path} to"):
        Training(tmp_path).load()


@pytest.mark.parametrize("finished", [False, True])
def test_another_format_is_refused_unless_its_training_was_over(tmp_path, finished):
    (tmp_path / "step-00000004").mkdir()
    cursor = {"step": 4, "digest": "0" * 64, "finished": finished}
    (tmp_path / "step-00000004/cursor.json").write_text(json.dumps(cursor))
    checkpoints = Training(tmp_path).checkpoints
    if finished:
        assert checkpoints.newest() is None
        return
    with pytest.raises(
        SparseBalanceError, match=r"format_version = None: not 2\. delete the folder"
    ):
        checkpoints.newest()


class Evil:
    def __reduce__(self):
        return (os.mkdir, (os.environ["EVIL"],))


def test_an_index_runs_no_foreign_code(tmp_path, monkeypatch):
    path, _ = saved(tmp_path)
    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    (path / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(SparseBalanceError, match=r"mkdir does not belong there"):
        Training(tmp_path).load(path)
    assert not (tmp_path / "evil").exists()


class Member:
    """Pickles as Python 3.11.0 to 3.11.3 pickle a member of an enum."""

    def __init__(self, owner, name):
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


def test_an_index_of_an_early_python_is_read_and_getattr_reaches_nothing_else(tmp_path):
    from torch.distributed.checkpoint import metadata

    from sbcore.train.restore import read_index

    encoding = metadata._MEM_FORMAT_ENCODING
    entry = Member(encoding, "TORCH_CONTIGUOUS_FORMAT")
    saved = metadata.Metadata(state_dict_metadata={}, planner_data=entry)
    (tmp_path / ".metadata").write_bytes(pickle.dumps(saved))
    assert read_index(tmp_path).planner_data is encoding.TORCH_CONTIGUOUS_FORMAT
    for owner, name in ((metadata.Metadata, "__init__"), (encoding, "__class__")):
        (tmp_path / ".metadata").write_bytes(pickle.dumps(Member(owner, name)))
        with pytest.raises(SparseBalanceError, match="not the index of a checkpoint"):
            read_index(tmp_path)
