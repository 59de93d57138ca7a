import pytest
import torch
from torch.distributed.fsdp import FSDPModule

from sbcore.model import shard
from sbcore.model.shard import shard_model, synchronise_gradients
from sbcore.types import Barrier


class Told(FSDPModule, torch.nn.Linear):
    """Writes down what it is told; a module becomes one as FSDP does it."""

    def set_requires_gradient_sync(self, value):
        self.told.append(("meet", value))

    def set_reshard_after_backward(self, value):
        self.told.append(("reshard", value))


def told_in_a_step(barrier, *, keeps_gathered, num_micro_batches=4):
    model = torch.nn.Linear(1, 1)
    model.__class__ = Told
    shard._SAID[model] = shard._Said(keeps_gathered=keeps_gathered)
    steps = []
    for _ in range(2):
        model.told = []
        for m in range(num_micro_batches):
            synchronise_gradients(model, barrier=barrier, last=m == num_micro_batches - 1)
            model.told.append(m)
        steps.append(model.told)
    return steps


def test_gathered_weights_stay_until_the_last_micro_batch_though_gradients_meet():
    first, second = told_in_a_step(Barrier.MICRO, keeps_gathered=True)
    assert first == second == [("reshard", False), 0, 1, 2, ("reshard", True), 3]


def test_under_barrier_step_gradients_meet_once():
    away, home = [("meet", False), ("reshard", False)], [("meet", True), ("reshard", True)]
    first, second = told_in_a_step(Barrier.STEP, keeps_gathered=True)
    assert first == second == [*away, 0, 1, 2, *home, 3]


@pytest.mark.parametrize("num_micro_batches", [1, 3])
def test_weights_gathered_anew_need_no_word(num_micro_batches):
    steps = told_in_a_step(Barrier.MICRO, keeps_gathered=False, num_micro_batches=num_micro_batches)
    assert steps == [list(range(num_micro_batches))] * 2


@pytest.mark.parametrize(
    ("barrier", "keep_gathered", "anew"),
    [
        (Barrier.MICRO, False, True),
        (Barrier.MICRO, True, False),
        (Barrier.STEP, False, False),
        (Barrier.STEP, True, False),
    ],
)
def test_layers_share_collectives_and_are_gathered_anew_where_micro_batches_meet(
    monkeypatch, barrier, keep_gathered, anew
):
    parts = []

    def note(part, *, mesh, mp_policy, reshard_after_forward):
        assert mp_policy.reduce_dtype is torch.float32
        assert mp_policy.param_dtype is torch.bfloat16
        parts.append((part, reshard_after_forward))

    monkeypatch.setattr(shard, "fully_shard", note)
    model = torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(5)))
    layers = list(model)
    shard_model(
        model,
        layers,
        mesh=None,
        barrier=barrier,
        dtype=torch.bfloat16,
        layers_per_shard=2,
        keep_gathered=keep_gathered,
    )
    assert [part for part, _ in parts] == [layers[:2], layers[2:4], layers[4], model]
    assert {reshard for _, reshard in parts} == {anew}
    assert shard._SAID[model].keeps_gathered != anew
