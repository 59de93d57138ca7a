import pytest
import torch

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
    assert "(1 in a row, 2 in all)" in observe(count, 3, float("inf"))


def test_too_many_in_a_row_stop_training_also_across_a_restart():
    count = NonFiniteCount(limit=3)
    observe(count, 5, NAN)
    observe(count, 6, NAN)
    resumed = NonFiniteCount(limit=3)
    resumed.load(count.state())
    with pytest.raises(SparseBalanceError, match=r"step 7: .* step 3 in a row.*step-4\.$"):
        observe(resumed, 7, NAN)
