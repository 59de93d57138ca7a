import pytest
import torch

from sbcore.model.feed_forward import gated_feed_forward
from sbcore.model.recompute import Recompute


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.runs = 0

    def forward(self, x, *, scale):
        self.runs += 1
        return torch.sin(x * self.weight) * scale


def gradient(mode, num_tokens, above_tokens):
    layer = Layer()
    recompute = Recompute([layer], mode, above_tokens=above_tokens)
    active = recompute.prepare(num_tokens)
    layer(torch.arange(3.0), scale=2.0).sum().backward()
    return active, layer.runs, layer.weight.grad


@pytest.mark.parametrize("mode", ["none", "full", "selective"])
def test_gradients_do_not_depend_on_the_mode(mode):
    active, runs, grad = gradient(mode, 10, 0)
    assert active == (mode != "none")
    assert runs == (2 if active else 1)
    torch.testing.assert_close(grad, gradient("none", 10, 0)[2])


def test_short_micro_batches_keep_their_activations():
    assert gradient("full", 100, 100)[:2] == (False, 1)
    assert gradient("full", 101, 100)[:2] == (True, 2)


def test_without_gradients_a_layer_runs_once():
    layer = Layer()
    Recompute([layer], "full", above_tokens=0).prepare(1)
    with torch.no_grad():
        layer(torch.ones(3), scale=1.0)
    assert layer.runs == 1


class Gated(torch.nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = torch.nn.ParameterList(
            torch.randn(shape, generator=generator) for shape in ((6, 4), (6, 4), (4, 6))
        )

    def forward(self, x):
        return x + gated_feed_forward(torch.tanh(x), *self.weights)


def gated_gradients(mode):
    layers = [Gated() for _ in range(2)]
    Recompute(layers, mode, above_tokens=0).prepare(1)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    out = layers[1](layers[0](x))
    out.square().sum().backward()
    return [out.detach(), x.grad, *(w.grad for layer in layers for w in layer.weights)]


@pytest.mark.parametrize("mode", ["full", "selective"])
def test_the_product_that_is_left_out_is_missed_nowhere(mode):
    """Neither in these gradients nor in what runs after them."""
    before = gated_gradients("none")
    for found in (gated_gradients(mode), gated_gradients("none")):
        for ours, expected in zip(found, before, strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=0)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_dropout_drops_the_same_again(share):
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Dropout(share))
    x = torch.randn(8, 64)
    gradients = []
    for mode in ("none", "full"):
        if mode == "full":
            Recompute([layer], mode, above_tokens=0).prepare(1)
        torch.manual_seed(3)
        layer.zero_grad()
        layer(x).square().sum().backward()
        gradients.append(layer[0].weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
