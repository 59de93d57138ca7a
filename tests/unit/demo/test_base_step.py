"""One step of the base model: what is learned from, what is counted, who updates what."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sbcore.config.training import ModelShape
from sbcore.demo import base_step
from sbcore.demo.base_batches import draw_batches
from sbcore.demo.base_step import make_optimizers, train_step
from sbcore.demo.tasks import TASKS
from sbcore.model.build import shape_config


@pytest.fixture
def model(demo_text):
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        shape_config(ModelShape(), vocab_size=len(demo_text.tokenizer), max_tokens=700)
    )


@pytest.fixture
def batch(demo_text):
    return next(draw_batches(demo_text.training, 1500, np.random.default_rng(0)))


def test_the_loss_is_of_each_answer_from_what_stands_before_it(model, batch):
    with torch.no_grad():
        logits = model(batch.tokens).logits.flatten(0, 1).log_softmax(-1)
    flat = batch.tokens.flatten().tolist()
    losses = [-logits[at, flat[at + 1]].item() for at in batch.before.tolist()]
    step = train_step(model, batch, [torch.optim.SGD(model.parameters(), lr=0.0)])
    assert step.loss == pytest.approx(np.mean(losses), rel=1e-5)


class Reader(nn.Module):
    """Foretells the next token of a batch, but for those of some positions."""

    device = torch.device("cpu")

    def __init__(self, batch, *, wrong_at, num_words):
        super().__init__()
        said = batch.tokens.flatten().roll(-1)
        said[wrong_at] = (said[wrong_at] + 1) % num_words
        self.hidden = nn.functional.one_hot(said, num_words).float().view(*batch.tokens.shape, -1)
        self.lm_head = nn.Linear(num_words, num_words, bias=False)
        nn.init.eye_(self.lm_head.weight)

    def model(self, input_ids):
        assert input_ids.shape == self.hidden.shape[:2]
        return SimpleNamespace(last_hidden_state=self.hidden)


def test_right_answers_are_counted_by_task_and_end_tokens_are_none(demo_text, batch, monkeypatch):
    monkeypatch.setattr(base_step, "_TOKENS_PER_PASS", batch.tokens.numel())
    words, ends = ~batch.is_end, batch.before[batch.is_end]
    every_third = batch.before[words][::3]
    reader = Reader(
        batch, wrong_at=torch.cat([every_third, ends]), num_words=len(demo_text.tokenizer)
    )
    step = train_step(reader, batch, [torch.optim.SGD(reader.parameters(), lr=0.0)])
    tasks = batch.task[words].tolist()
    wrong = tasks[::3]
    assert step.counts.tolist() == [
        [tasks.count(task) - wrong.count(task) for task in range(len(TASKS))],
        [tasks.count(task) for task in range(len(TASKS))],
    ]
    assert all(tasks.count(task) for task in range(len(TASKS)))


def test_muon_has_the_matrices_of_the_layers_and_adam_each_other_weight_once(model):
    muon, adam = make_optimizers(model)
    assert isinstance(muon, torch.optim.Muon)
    assert isinstance(adam, torch.optim.AdamW)
    names = {id(p): name for name, p in model.named_parameters()}
    of = [[names[id(p)] for g in each.param_groups for p in g["params"]] for each in (muon, adam)]
    assert sorted(of[0] + of[1]) == sorted(names.values())
    projections = [name for name in names.values() if "_proj.weight" in name]
    assert sorted(of[0]) == sorted(projections)
    assert len(projections) == 2 * 7


def test_all_matrices_move_alike_and_all_others_at_the_rate_of_adam(model):
    optimizers = make_optimizers(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.manual_seed(1)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    for optimizer in optimizers:
        optimizer.step()
    for name, p in model.named_parameters():
        moved = (p.detach() - before[name]).square().mean().sqrt().item()
        if "_proj.weight" in name:  # 0.2: the usual size of what AdamW does at this rate
            assert moved == pytest.approx(0.2 * base_step._MUON_RATE, rel=0.2), name
        else:
            assert moved == pytest.approx(base_step._ADAM_RATE, rel=0.01), name


def test_a_step_moves_every_weight_and_leaves_no_gradient_to_the_next(model, batch):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train_step(model, batch, make_optimizers(model))
    still = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert not [name for name in still if "norm" not in name and "bias" not in name]
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_a_large_gradient_is_cut_to_the_limit_and_a_small_one_left(
    model, batch, monkeypatch, share
):
    def moved(limit):
        monkeypatch.setattr(base_step, "_MAX_GRAD_NORM", limit)
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        train_step(model, batch, [torch.optim.SGD(model.parameters(), lr=1.0)])
        after = nn.utils.parameters_to_vector(model.parameters()).detach()
        nn.utils.vector_to_parameters(before, model.parameters())
        return torch.linalg.vector_norm(after - before).item()

    whole = moved(1e9)
    assert moved(share * whole) == pytest.approx(min(share, 1.0) * whole, rel=1e-3)


def test_a_gradient_of_a_usual_size_is_not_cut(model, batch):
    loss = model(batch.tokens).logits.flatten(0, 1)[batch.before]
    nn.functional.cross_entropy(loss, batch.labels).backward()
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
    assert norm < base_step._MAX_GRAD_NORM
