import json

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial

from sbcore.errors import SparseBalanceError
from sbcore.train.faults import NonFiniteCount, finite_guard

NAN = float("nan")


def make_optimizer():
    weight = torch.ones(3, requires_grad=True)
    return weight, torch.optim.AdamW([weight], lr=0.1, fused=True)


@pytest.mark.parametrize("norm", [NAN, float("inf")])
def test_a_step_without_a_finite_norm_changes_nothing(norm):
    weight, optimizer = make_optimizer()
    weight.grad = torch.ones(3)
    finite_guard(optimizer, torch.tensor(1.0))
    optimizer.step()
    before = [weight.detach().clone(), *(t.clone() for t in optimizer.state[weight].values())]
    weight.grad = torch.full((3,), norm)
    assert finite_guard(optimizer, torch.tensor(norm)) == 1.0
    optimizer.step()
    after = [weight.detach(), *optimizer.state[weight].values()]
    assert all(map(torch.equal, before, after))


def test_the_step_after_a_skipped_one_trains():
    weight, optimizer = make_optimizer()
    weight.grad = torch.ones(3)
    finite_guard(optimizer, torch.tensor(NAN))
    optimizer.step()
    assert torch.equal(weight, torch.ones(3))
    assert finite_guard(optimizer, torch.tensor(2.0)) == 0.0
    optimizer.step()
    assert (weight < 1).all()
    assert optimizer.state[weight]["step"] == 1


def test_a_norm_that_ranks_share_makes_a_flag_of_each_rank():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        _, optimizer = make_optimizer()
        for norm, flag in ((NAN, 1.0), (2.0, 0.0)):
            shared = DTensor.from_local(torch.tensor(norm), mesh, [Partial()])
            found = finite_guard(optimizer, shared)
            assert type(found) is torch.Tensor
            assert (found.item(), found.dtype) == (flag, torch.float32)
    finally:
        dist.destroy_process_group()


def observe(count, step, norm, losses=(1.0, 1.0)):
    return count.observe(step, norm, losses=losses, last_good="step-4")


def test_skipped_steps_are_counted_and_said_once():
    count = NonFiniteCount(limit=2)
    assert observe(count, 0, 1.0) is None
    line = observe(count, 1, NAN, (1.0, NAN))
    assert line == (
        "step 1: gradient norm = nan, loss of rank 1 = nan: not finite, step skipped "
        "(1 in a row, 1 in all)"
    )
    assert observe(count, 2, 1.0) is None
    line = observe(count, 3, float("inf"), (float("-inf"), 1.0))
    assert line == (
        "step 3: gradient norm = inf, loss of rank 0 = -inf: not finite, step skipped "
        "(1 in a row, 2 in all)"
    )


def test_too_many_in_a_row_stop_training_also_across_a_restart():
    count = NonFiniteCount(limit=3)
    for step, norm in enumerate((NAN, 1.0, NAN, NAN), start=3):
        observe(count, step, norm)
    resumed = NonFiniteCount(limit=3)
    resumed.load(count.state())
    assert json.dumps([resumed.total, resumed.in_a_row]) == "[3, 2]"
    with pytest.raises(SparseBalanceError) as caught:
        observe(resumed, 7, NAN)
    assert str(caught.value) == (
        "step 7: gradient norm = nan: not finite, step 3 in a row. look at these samples, or lower "
        "train.learning_rate, with which training starts anew; last good checkpoint: step-4."
    )
