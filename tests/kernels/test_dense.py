"""The library's dense attention as the backends call it: values, and the gradient's layout."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from sbkernels.moba import dense
from sbkernels.testing import assert_close, make_inputs

LAYOUTS = {
    "as given": lambda grad: grad,
    "heads first": lambda grad: grad.transpose(0, 1).contiguous().transpose(0, 1),
    "expanded": lambda grad: grad[:1, :1, :1].expand_as(grad),
}


def inputs_of(device, dtype, *, num_tokens=200):
    return make_inputs(
        (num_tokens,),
        num_heads=4,
        num_kv_heads=2,
        head_dim=64,
        family="iid",
        seed=0,
        dtype=dtype,
        device=device,
    )


def gradients(inputs, grad_out):
    q, k, v = (x.detach().requires_grad_() for x in (inputs.q, inputs.k, inputs.v))
    out = dense.attend_dense(q, k, v, scale=0.125)
    return torch.autograd.grad(out, (q, k, v), grad_out)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_the_library_sees_one_layout_of_the_gradient(layout, monkeypatch):
    seen = []

    def attend(*tensors, **options):
        out = scaled_dot_product_attention(*tensors, **options)
        out.register_hook(lambda grad: seen.append(grad.stride()))
        return out

    monkeypatch.setattr(dense, "scaled_dot_product_attention", attend)
    inputs = inputs_of("cpu", torch.float32)
    gradients(inputs, LAYOUTS[layout](inputs.grad_out))
    # [1, H, L, D]; the stride of the one batch means nothing
    assert [strides[1:] for strides in seen] == [(64, 4 * 64, 1)]


def test_the_library_sees_rows_that_lie_one_behind_the_other(monkeypatch):
    seen = []

    def attend(*tensors, **options):
        seen.extend(tensors)
        return scaled_dot_product_attention(*tensors, **options)

    monkeypatch.setattr(dense, "scaled_dot_product_attention", attend)
    dense.attend_dense(*torch.randn(100, 8, 64).split([4, 2, 2], dim=1), scale=0.125)
    assert [x.transpose(1, 2).is_contiguous() for x in seen] == [True] * 3


@pytest.mark.gpu
def test_lengths_of_one_power_of_two_share_a_plan():
    """Sequences cut from a pack, shorter and longer than the one that made the plan."""
    pack = inputs_of("cuda", torch.bfloat16, num_tokens=4000)
    for start, num_tokens in ((0, 700), (700, 513), (1213, 1024), (2237, 1), (2238, 900)):
        rows = slice(start, start + num_tokens)
        part = replace(
            pack, q=pack.q[rows], k=pack.k[rows], v=pack.v[rows], grad_out=pack.grad_out[rows]
        )
        exact = part.to(torch.float32)
        wanted = torch.cat(gradients(exact, exact.grad_out), dim=1)
        ours = torch.cat(gradients(part, part.grad_out), dim=1)  # a token alone has no dq nor dk
        assert_close(f"gradients of {num_tokens}", ours, wanted, tolerance=0.02)


def test_a_compiled_model_takes_dense_attention_whole():
    inputs = inputs_of("cpu", torch.float32)
    here = (inputs.q, inputs.k, inputs.v)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def model(q, k, v):
        if dense._fastest_is_first():
            return q
        with dense.prefer_fastest_dense():
            return dense.attend_causal(q * 1.0, k, v, scale=0.125)

    with dense.prefer_fastest_dense():
        got = model(*here)
    assert_close("out", got, dense.attend_dense(*here, scale=0.125), tolerance=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_gradients_do_not_depend_on_what_ran_before(layout):
    inputs = inputs_of("cuda", torch.bfloat16, num_tokens=1024)
    # The library's own plan for these shapes is made by a gradient of rows first.
    q, k, v = (
        x.transpose(0, 1)[None].detach().requires_grad_() for x in (inputs.q, inputs.k, inputs.v)
    )
    out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.125, enable_gqa=True)
    torch.autograd.grad(out, (q, k, v), inputs.grad_out.transpose(0, 1)[None])
    grad_out = LAYOUTS[layout](inputs.grad_out)
    exact = inputs.to(torch.float32)
    wanted = gradients(exact, grad_out.float())
    for name, ours, true in zip(
        ("dq", "dk", "dv"), gradients(inputs, grad_out), wanted, strict=True
    ):
        assert_close(name, ours, true, tolerance=0.02)
