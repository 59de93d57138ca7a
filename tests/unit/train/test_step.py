import pytest
import torch

from sbcore.train.step import learning_rate_at, update


def rate(step, num_steps=100):
    return learning_rate_at(step, num_steps, peak=2.0, warmup_share=0.1, decay_share=0.3)


def test_rate_rises_stays_and_falls():
    assert rate(0) == pytest.approx(0.2)
    assert rate(9) == rate(50) == 2.0
    assert rate(85) == pytest.approx(1.0)
    assert rate(99) == pytest.approx(2.0 / 30)


def test_the_last_of_many_steps_still_has_a_fiftieth():
    assert rate(999, 1000) == pytest.approx(2.0 / 50)
    assert rate(990, 1000) > rate(996, 1000) == rate(999, 1000)


@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_short_runs_have_a_positive_rate_everywhere(num_steps):
    assert all(0 < rate(step, num_steps) <= 2.0 for step in range(num_steps))


def test_without_warmup_and_decay_it_is_flat():
    rates = {
        learning_rate_at(s, 10, peak=1.0, warmup_share=0.0, decay_share=0.0) for s in range(10)
    }
    assert rates == {1.0}


def test_update_clips_steps_and_clears():
    model = torch.nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, fused=True)
    norm = update(model, optimizer, learning_rate=0.5, max_norm=1.0)
    assert norm == pytest.approx(5.0)
    expected = before - 0.5 * torch.tensor([[0.6, 0.8]])
    torch.testing.assert_close(model.weight.detach(), expected, atol=1e-5, rtol=0)
    assert model.weight.grad is None
