"""The fused pointwise kernels against the formulas in float64, in the interpreter or on a GPU."""

import pytest
import torch
from torch.nn.functional import silu

from sbkernels.pointwise.gated import silu_product, silu_product_backward
from sbkernels.pointwise.rotary import turn, turn_back

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Relative rounding of one result, at the end. The interpreter cuts bfloat16 off.
NEAR = {torch.float32: 2e-6, torch.float16: 2**-11}
NEAR[torch.bfloat16] = 2**-8 if DEVICE.type == "cuda" else 2**-7
TYPES = pytest.mark.parametrize("dtype", NEAR)


def random(*shape, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=generator)).to(DEVICE, dtype)


def assert_near(found, exact, dtype):
    assert found.dtype == dtype
    assert found.shape == exact.shape
    error = (found.double() - exact.detach()).abs() / exact.detach().abs().clamp(min=1.0)
    assert error.max().item() < NEAR[dtype]


@TYPES
@pytest.mark.parametrize("shape", [(1, 7), (37, 176), (5, 4096)])
def test_the_gated_product_and_its_gradients(dtype, shape):
    gated, raised, grad = (random(*shape, dtype=dtype, seed=s) for s in range(3))
    exact = [x.double().requires_grad_() for x in (gated, raised)]
    product = silu(exact[0]) * exact[1]
    by_gated, by_raised = torch.autograd.grad(product, exact, grad.double())
    assert_near(silu_product(gated, raised), product, dtype)
    found = silu_product_backward(grad.clone(), gated, raised)
    for value, truth in zip(found, (product, by_gated, by_raised), strict=True):
        assert_near(value, truth, dtype)


@pytest.mark.parametrize("value", [-200.0, 0.0, 200.0])
def test_far_from_zero_the_gate_is_open_or_shut(value):
    gated = torch.full((1, 4), value, device=DEVICE)
    ones = torch.ones_like(gated)
    assert torch.equal(silu_product(gated, ones), silu(gated))
    _, by_gated, _ = silu_product_backward(ones.clone(), gated, ones)
    assert by_gated.flatten().tolist() == [{-200.0: 0.0, 0.0: 0.5, 200.0: 1.0}[value]] * 4


def angles(num_tokens, dim, dtype):
    """Cosine and sine as a decoder hands them on: halves of rows that are twice as long."""
    x = random(num_tokens, 1, dim // 2, dtype=torch.float32, seed=9)
    return tuple(
        torch.cat([f(x), f(x)], -1).to(dtype)[..., : dim // 2] for f in (torch.cos, torch.sin)
    )


def turned(x, cos, sin):
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


@TYPES
@pytest.mark.parametrize(("num_heads", "num_key_heads"), [(4, 2), (14, 2), (3, 1), (1, 1)])
@pytest.mark.parametrize("dim", [16, 24, 64])
def test_positions_are_turned_in_and_gradients_back(dtype, num_heads, num_key_heads, dim):
    total, num_tokens = num_heads + 2 * num_key_heads, 13
    qkv = random(num_tokens, total, dim, dtype=dtype, seed=0)
    cos, sin = angles(num_tokens, dim, dtype)
    exact = qkv.double().requires_grad_()
    q, k, v = exact.split([num_heads, num_key_heads, num_key_heads], 1)
    qk = turned(torch.cat([q, k], 1), cos.double(), sin.double())
    assert_near(turn(qkv, cos, sin, num_key_heads=num_key_heads), qk, dtype)

    grads = random(num_tokens, total, dim, dtype=dtype, seed=1)  # views of one buffer, with gaps
    dq, dk, dv = grads.split([num_heads, num_key_heads, num_key_heads], 1)
    (truth,) = torch.autograd.grad([qk, v], exact, [torch.cat([dq, dk], 1).double(), dv.double()])
    assert_near(turn_back(dq, dk, dv, cos, sin), truth, dtype)


def test_gradients_of_any_layout_are_taken():
    cos, sin = angles(5, 16, torch.float32)
    dq = random(16, 4, 5, dtype=torch.float32, seed=0).permute(2, 1, 0)
    dk, dv = (
        torch.ones(1, device=DEVICE).expand(5, 2, 16),
        random(5, 2, 16, dtype=torch.float32, seed=2),
    )
    found = turn_back(dq, dk, dv, cos, sin)
    assert torch.equal(found, turn_back(dq.contiguous(), dk.contiguous(), dv, cos, sin))
    assert torch.equal(found[:, 6:], dv)
