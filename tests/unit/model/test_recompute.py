import pytest
import torch
from torch.nn.functional import linear, scaled_dot_product_attention, silu
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy

from sbcore.model.feed_forward import gated_feed_forward
from sbcore.model.recompute import Recompute, _draw, _policy


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


class PlainGated(Gated):
    def forward(self, x):
        gate, up, down = self.weights
        inner = torch.tanh(x)
        return x + linear(silu(linear(inner, gate)) * linear(inner, up), down)


def gated_gradients(mode, kind=Gated):
    layers = [kind() for _ in range(2)]
    Recompute(layers, mode, above_tokens=0).prepare(1)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    out = layers[1](layers[0](x))
    out.square().sum().backward()
    return [out.detach(), x.grad, *(w.grad for layer in layers for w in layer.weights)]


@pytest.mark.parametrize("mode", ["full", "selective"])
def test_the_product_that_is_left_out_is_missed_nowhere(mode):
    """Neither in these gradients nor in what runs after them."""
    found, after = gated_gradients(mode), gated_gradients("none")
    for ours, later, plain in zip(found, after, gated_gradients("none", PlainGated), strict=True):
        torch.testing.assert_close(ours, later, rtol=0, atol=0)
        torch.testing.assert_close(ours, plain)


class AttendingLayer(Gated):
    """Attention to itself, then the feed-forward layer."""

    def forward(self, x):
        heads = torch.sin(x)[None, None]
        attended = scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        return super().forward(attended[0, 0])


class CountCalls(TorchDispatchMode):
    """Counts attention's and the products' calls of forward passes, the first one's and again."""

    def __init__(self):
        super().__init__()
        self.attention = self.products = self.sines = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        self.attention += "attention" in name and "backward" not in name
        self.products += name.startswith("aten.mm")
        self.sines += name.startswith("aten.sin.")
        return func(*args, **(kwargs or {}))


def counted(mode):
    layer = AttendingLayer()
    Recompute([layer], mode, above_tokens=0).prepare(1)
    x = torch.randn(5, 4, requires_grad=True)
    with CountCalls() as calls:
        layer(x).sum().backward()
    return calls


@pytest.mark.parametrize(("mode", "attention"), [("full", 2), ("selective", 1)])
def test_all_but_the_last_product_and_kept_attention_runs_again(mode, attention):
    once, again = counted("none"), counted(mode)
    assert (once.attention, once.sines) == (1, 1)
    assert (again.attention, again.sines) == (attention, 2)
    assert again.products - once.products == 2  # gate and up, not down


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("aten._scaled_dot_product_flash_attention_for_cpu.default", True),
        ("sbkernels.moba_forward.default", True),
        ("sbkernels.moba_coverage.default", False),
        ("aten.mm.default", False),
    ],
)
def test_selective_recomputation_keeps_attention_alone(name, kept):
    assert (_policy(None, name) is CheckpointPolicy.MUST_SAVE) == kept


def test_generators_states_are_kept_for_dropout_that_drops():
    assert [_draw([torch.nn.Dropout(share)]) for share in (0.0, 0.1)] == [False, True]


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
