from types import SimpleNamespace

import pytest
import torch

from sbcore.config.compute import AttentionConfig
from sbcore.model.recompute import Recompute
from sbcore.train import step
from sbcore.train.batches import PackedBatch
from sbcore.train.clock import HostClock
from sbcore.train.step import Work, learning_rate_at, run_micro_batches, update
from sbcore.types import Barrier


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


class SummedWeight(torch.nn.Module):
    """A model whose loss is its weight times its tokens; notes the calls it is given."""

    def __init__(self):
        super().__init__()
        self.weight, self.calls = torch.nn.Parameter(torch.tensor(3.0)), []

    def forward(self, *, input_ids, position_ids, predict_at, labels, sb_call):
        self.calls.append(sb_call)
        return self.weight * input_ids.numel()


def batch(*lengths, sequences=None):
    ids = torch.zeros(1, sum(lengths), dtype=torch.int64)
    chosen = tuple(range(len(lengths))) if sequences is None else sequences
    return PackedBatch(ids, ids, torch.tensor([0]), ids[0], ids[0], lengths, chosen)


def test_micro_batches_share_the_targets_of_the_whole_step(monkeypatch):
    """Two of 10 tokens are recomputed together; one of 12 is not, and a dummy counts nothing."""
    met = []
    monkeypatch.setattr(
        step, "synchronise_gradients", lambda _m, *, barrier, last: met.append(last)
    )
    model, budgets = SummedWeight(), [SimpleNamespace() for _ in range(3)]
    clock = HostClock()
    clock.start()
    found = run_micro_batches(
        model,
        Work([batch(10, 10), batch(12), batch(1, sequences=())], budgets, num_target_tokens=64),
        attention=AttentionConfig(block_size=4, backend="torch"),
        barrier=Barrier.STEP,
        recompute=Recompute([], "full", above_tokens=15),
        clock=clock,
    )
    assert (float(found), float(model.weight.grad)) == (3.0 * 32 / 64, 32 / 64)
    assert met == [False, False, True]
    assert [call.keep_choices for call in model.calls] == [True, False, False]
    assert [call.budgets for call in model.calls] == budgets
    assert [call.lengths for call in model.calls] == [(10, 10), (12,), (1,)]
    assert len(clock.finish().read().spans) == 3
