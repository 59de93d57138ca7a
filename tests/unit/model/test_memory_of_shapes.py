"""What a layer of the built-in shapes keeps for its backward pass and runs again, on `meta`.

docs/decisions/memory-of-shapes.md rests on these numbers.
"""

import collections

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from sbcore.config.shapes import SHAPES
from sbcore.config.training import ModelShape
from sbcore.model import own_forward
from sbcore.model.build import empty_model, shape_config
from sbcore.model.own_forward import LayerInputs, give_own_forward
from sbcore.model.recompute import Recompute
from sbcore.train.flops import model_facts
from sbkernels.moba.triton.operators import forward_op

NUM_TOKENS, BLOCK_SIZE = 65_536, 256
KEPT_BYTES = {
    ("Qwen2.5-0.5B", "none"): 31_488,
    ("Qwen2.5-0.5B", "selective"): 4_088,
    ("Qwen2.5-0.5B", "full"): 2_240,
    ("Qwen2.5-3B", "none"): 70_728,
    ("Qwen2.5-3B", "selective"): 8_768,
    ("Qwen2.5-3B", "full"): 4_608,
}
"""Of each token and layer, the layer's input and its choice of blocks included."""


class Watch(TorchDispatchMode):
    """Counts operators and knows how much of the memory that they made is still there."""

    def __init__(self, given):
        super().__init__()
        self.calls, self.made = collections.Counter(), {}
        self.given = {tensor.untyped_storage()._cdata for tensor in given}

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        self.calls[op.name()] += 1
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.given:
                    self.made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return result

    @property
    def bytes_alive(self):
        return sum(size for storage, size in self.made.values() if not storage.expired())


class FusedNorm(torch.autograd.Function):
    """Keeps what the library's fused norm keeps on a GPU; on `meta` it is eight operations."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight, x.new_empty((len(x), 1), dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, grad):
        return torch.empty_like(grad), grad[0].clone()


@pytest.fixture
def make_layer(monkeypatch):
    """Returns a function that makes a layer of a shape, and a call of it."""
    choices = {}

    def attend(layer, q, k, v, *, call, scale):
        num_heads, num_blocks = q.shape[1], NUM_TOKENS // BLOCK_SIZE
        if layer not in choices:
            shape = (num_heads, num_blocks, NUM_TOKENS // 32)
            choices[layer] = q.new_empty(shape, dtype=torch.int32)
        table = q.new_empty((num_blocks + 1, 4), dtype=torch.int32)
        k, v = k.contiguous(), v.contiguous()
        return forward_op(
            q, k, v, choices[layer], table, table[0, :2], BLOCK_SIZE, 1, 32, 0.1, False
        )[0]

    monkeypatch.setattr(own_forward, "attend_layer", attend)
    monkeypatch.setattr(
        own_forward, "rms_norm", lambda x, _, weight, eps: FusedNorm.apply(x, weight)
    )

    def make(name):
        choices.clear()
        shape = ModelShape.model_validate(SHAPES[name]).model_copy(update={"num_hidden_layers": 1})
        architecture = shape_config(shape, vocab_size=shape.vocab_size, max_tokens=NUM_TOKENS)
        model = empty_model(architecture, dtype=torch.bfloat16)
        give_own_forward(model)
        x = torch.empty(NUM_TOKENS, shape.hidden_size, dtype=torch.bfloat16, device="meta")
        angles = torch.empty(NUM_TOKENS, 1, shape.head_dim // 2, dtype=x.dtype, device="meta")
        return model, x.requires_grad_(), angles

    return make


def run_layer(made, mode):
    """Returns the bytes kept of each token, the operators called and their products' work."""
    model, x, angles = made
    layer = model.get_decoder().layers[0]
    Recompute([layer], mode, above_tokens=0).prepare(NUM_TOKENS)
    with FlopCounterMode(display=False) as flops, Watch([*model.parameters(), x, angles]) as seen:
        out = layer(x, LayerInputs(None, angles, angles))  # counted in the place of x
        kept = seen.bytes_alive / NUM_TOKENS
        out.backward(torch.empty_like(out))
    return kept, seen.calls, flops.get_total_flops()


@pytest.mark.parametrize(("name", "mode"), KEPT_BYTES)
def test_what_a_layer_keeps_and_runs_again(make_layer, name, mode):
    once = run_layer(make_layer(name), "none")[2]
    made = make_layer(name)
    facts = model_facts(made[0])
    kept, calls, work = run_layer(made, mode)
    assert kept == pytest.approx(KEPT_BYTES[name, mode], rel=0.01)
    assert calls["sbkernels::moba_forward"] == (2 if mode == "full" else 1)
    again = 0 if mode == "none" else 2 * NUM_TOKENS * facts.weights_again
    assert work - once == pytest.approx(again, rel=1e-3)
    assert facts.weights_again < 0.75 * facts.layer_weights
