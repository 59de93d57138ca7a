"""Adapters in our own products: what is dropped, gradients, what is kept, how many operators."""

import pytest
import torch
from torch.nn.functional import linear, silu
from torch.utils._python_dispatch import TorchDispatchMode

from sbcore.config.lora import LoraConfig
from sbcore.model.adapted_feed_forward import adapted_feed_forward
from sbcore.model.lora import ADAPTER, add_lora
from sbcore.model.projection import project, project_jointly
from sbcore.model.recompute import Recompute

NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SIZES = dict(zip(NAMES, [(6, 8), (4, 8), (4, 8), (8, 6), (10, 8), (10, 8), (8, 10)], strict=True))
TOKENS, RANK, ALPHA = 5, 2, 6


class Block(torch.nn.Module):
    """A layer's products, without attention between them."""

    def __init__(self, targets, *, dropout):
        super().__init__()
        for name, (num_out, num_in) in SIZES.items():
            self.add_module(name, torch.nn.Linear(num_in, num_out, bias=name[0] in "qkv"))
        if targets:
            add_lora(self, LoraConfig(rank=RANK, alpha=ALPHA, dropout=dropout, targets=targets))
        generator = torch.Generator().manual_seed(0)
        for name, part in list(self.named_modules()):
            for own, weight in list(part.named_parameters(recurse=False)):
                filled = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                setattr(part, own, torch.nn.Parameter(filled, requires_grad="lora_" in name))

    def forward(self, x):
        q, _, v = project_jointly(x, [self.q_proj, self.k_proj, self.v_proj]).split([6, 4, 4], 1)
        x = x + project(torch.tanh(q) + v.sum(1, keepdim=True), self.o_proj)
        return x + adapted_feed_forward(torch.tanh(x), self.gate_proj, self.up_proj, self.down_proj)

    def trained(self):
        return [weight for weight in self.parameters() if weight.requires_grad]


def inputs(*, requires_grad=True):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(TOKENS, 8, generator=generator, dtype=torch.float64)
    return x.requires_grad_(requires_grad)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("targets", [NAMES, ("q_proj", "v_proj"), ("up_proj",), ("down_proj",)])
def test_gradients_are_the_slopes(targets, dropout):
    block = Block(list(targets), dropout=dropout)
    trained = block.trained()

    def run(x, *weights):
        torch.manual_seed(3)
        return torch.func.functional_call(block, names_of(block, weights), (x,))

    assert torch.autograd.gradcheck(run, (inputs(), *trained))


def names_of(block, weights):
    names = [name for name, weight in block.named_parameters() if weight.requires_grad]
    return dict(zip(names, weights, strict=True))


def test_the_first_layer_needs_no_gradient_by_its_input():
    block = Block(list(NAMES), dropout=0.0)
    block(inputs()).sum().backward()
    expected = [weight.grad for weight in block.trained()]
    alone = Block(list(NAMES), dropout=0.0)
    alone(inputs(requires_grad=False)).sum().backward()
    for weight, gradient in zip(alone.trained(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient)


def test_layers_with_one_input_see_the_same_values_dropped():
    block, x = Block(list(NAMES), dropout=0.5), inputs(requires_grad=False)
    torch.manual_seed(2)
    dropped = torch.native_dropout(x, 0.5, True)[0]
    torch.manual_seed(2)
    y = project_jointly(x, [block.q_proj, block.k_proj, block.v_proj])
    for layer, part in zip(
        (block.q_proj, block.k_proj, block.v_proj), y.split([6, 4, 4], 1), strict=True
    ):
        base = linear(x, layer.base_layer.weight, layer.base_layer.bias)
        low = dropped @ layer.lora_A[ADAPTER].weight.t()
        added = (ALPHA / RANK) * low @ layer.lora_B[ADAPTER].weight.t()
        torch.testing.assert_close(part, base + added)
        assert (added.abs() > 0).any()


def test_nothing_is_dropped_in_evaluation():
    block, x = Block(list(NAMES), dropout=0.5).eval(), inputs()
    torch.testing.assert_close(block(x), Block(list(NAMES), dropout=0.0)(x))


@pytest.mark.parametrize("mode", ["full", "selective"])
def test_recomputed_layers_drop_what_they_dropped(mode):
    gradients = []
    for how in ("none", mode):
        block, x = Block(list(NAMES), dropout=0.4), inputs()
        Recompute([block], how, above_tokens=0).prepare(TOKENS)
        torch.manual_seed(4)
        block(x).square().sum().backward()
        gradients.append([x.grad, *(weight.grad for weight in block.trained())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_feed_forward_layer_keeps_neither_its_activation_nor_what_was_dropped():
    block, x, kept = Block(list(NAMES), dropout=0.4), inputs(), {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # alive, or its place is taken again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = adapted_feed_forward(x, block.gate_proj, block.up_proj, block.down_proj)
    out.sum().backward()
    weights = {weight.untyped_storage().data_ptr() for weight in block.parameters()}
    sizes = [(t.numel(), t.dtype) for at, t in kept.items() if at not in weights]
    assert sum(num for num, dtype in sizes if dtype is torch.float64) == TOKENS * (
        8 + 2 * 10 + 3 * RANK
    )
    assert sum(num for num, dtype in sizes if dtype is torch.bool) == TOKENS * (8 + 10)


class Operators(TorchDispatchMode):
    """Counts what would be launched on a device."""

    FREE = ("view", "detach", "transpose", ".t.", "split", "empty", "as_strided", "alias")

    def __init__(self):
        super().__init__()
        self.num = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.num += not any(word in str(func) for word in self.FREE)
        return func(*args, **(kwargs or {}))


def test_three_adapters_of_one_input_take_no_more_operators_than_these():
    block, x = Block(list(NAMES), dropout=0.4), inputs()
    with Operators() as forward:
        y = project_jointly(x, [block.q_proj, block.k_proj, block.v_proj])
    gradient = torch.ones_like(y)
    with Operators() as backward:
        y.backward(gradient)
    # Joined weights, biases and A; the product; dropout; all A; each B. Back: joined weights and A,
    # the product; each B twice; all A; dropout of x and of its gradient, which is added.
    assert forward.num == 3 + 1 + 1 + 1 + 3
    assert backward.num == 2 + 1 + 2 * 3 + 2 + 2 + 1


def test_without_adapters_it_is_the_plain_layer():
    block, x = Block([], dropout=0.0), inputs()
    made = silu(linear(x, block.gate_proj.weight)) * linear(x, block.up_proj.weight)
    for weight in block.parameters():
        weight.requires_grad_(False)
    out = adapted_feed_forward(x, block.gate_proj, block.up_proj, block.down_proj)
    torch.testing.assert_close(out, linear(made, block.down_proj.weight))
