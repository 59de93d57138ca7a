import pytest
import torch
from torch import nn

from sbcore.train.randomness import draw_random_state, random_state, set_random_state
from sbcore.train.staging import HostCopy, make_moments, training_tensors

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def make_training(device, width):
    torch.manual_seed(0)
    model = nn.Linear(width, width, bias=False).to(device)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)


def update(model, optimizer):
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("device", DEVICES)
def test_updates_after_staging_do_not_reach_the_copy(device):
    # On a GPU the copy of 3 x 256 MB takes longer than launching the updates behind it.
    model, optimizer = make_training(device, 8192 if device == "cuda" else 64)
    update(model, optimizer)
    copy = HostCopy(torch.device(device), optimizer)
    for _ in range(2):  # the second time into the same memory
        tensors = training_tensors(model, optimizer)
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        staged = copy.stage(tensors)
        for _ in range(3):
            update(model, optimizer)
        copy.wait()
        assert staged.keys() == before.keys()
        assert all(staged[name].device.type == "cpu" for name in staged)
        assert all(torch.equal(staged[name], before[name].cpu()) for name in staged)
        assert not torch.equal(model.weight.detach().cpu(), staged["model.weight"])


def test_names_do_not_tell_of_wrappers():
    model, optimizer = make_training("cpu", 4)
    wrapped = nn.ModuleDict({"_orig_mod": model})
    update(model, optimizer)
    names = training_tensors(wrapped, optimizer).keys()
    assert names == {
        "model.weight",
        "optimizer.weight.step",
        "optimizer.weight.exp_avg",
        "optimizer.weight.exp_avg_sq",
    }


def test_moments_made_early_change_nothing():
    trained = []
    for early in (False, True):
        model, optimizer = make_training("cpu", 8)
        if early:
            make_moments(model, optimizer)
            assert [state["step"].item() for state in optimizer.state.values()] == [0.0]
        for _ in range(3):
            update(model, optimizer)
        trained.append(training_tensors(model, optimizer))
    assert trained[0].keys() == trained[1].keys()
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


@pytest.mark.parametrize("device", DEVICES)
def test_random_states_come_back(device):
    where = torch.device(device)
    state = random_state(where, rank=3)
    drawn = torch.rand(4), torch.rand(4, device=where)
    set_random_state(state, where)
    assert torch.equal(torch.rand(4), drawn[0])
    assert torch.equal(torch.rand(4, device=where), drawn[1])


def test_drawn_states_differ_by_seed_step_and_rank_and_are_the_same_again():
    def draw(seed, step, rank):
        draw_random_state(seed, step=step, rank=rank)
        return torch.rand(1).item()

    places = [(0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3)]
    first = [draw(*place) for place in places]
    assert len(set(first)) == 4
    assert [draw(*place) for place in places] == first
