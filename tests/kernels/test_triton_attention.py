"""Attention of the triton backend, forward and backward, in both layouts."""

from dataclasses import replace

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from sbkernels import moba_attention, select_blocks
from sbkernels.moba.budget import ANY_TOP_K
from sbkernels.moba.triton import forward, op
from sbkernels.moba.triton.operators import coverage_op, forward_op, select_op
from sbkernels.testing import assert_close, assert_error_rule, attend_masked, make_inputs

UNION, GATHER = 1e30, 0.0  # bounds of the union inflation that force a layout
ODD = (0, 1, 130, 0, 200, 64, 65, 0)
ODD_BUDGETS = [3, 1, 2, 5, 3, 9, 1, 2]


@pytest.fixture(params=[UNION, GATHER], ids=["union", "gather"])
def layout(request, monkeypatch) -> float:
    monkeypatch.setattr(forward, "max_inflation_of", lambda head_dim: request.param)
    monkeypatch.setattr(forward, "SMALL_WORK_FLOPS", 0)
    return request.param


def inputs_of(lengths, *, heads=(2, 1), head_dim=32, dtype=torch.float32, family="iid", device):
    return make_inputs(
        lengths,
        num_heads=heads[0],
        num_kv_heads=heads[1],
        head_dim=head_dim,
        family=family,
        seed=0,
        dtype=dtype,
        device=device,
    )


def run(inputs, top_k, *, block_size=64, backend="triton", **options):
    """Returns out, dq, dk, dv; top_k is given as device data, of which the host knows nothing."""
    if isinstance(top_k, int):
        top_k = budgets([top_k], inputs.q.device)
    q, k, v = (x.detach().requires_grad_() for x in (inputs.q, inputs.k, inputs.v))
    out = moba_attention(
        q,
        k,
        v,
        inputs.cu_seqlens,
        top_k,
        block_size=block_size,
        max_seqlen=inputs.max_seqlen,
        backend=backend,
        **options,
    )
    return (out.detach(), *torch.autograd.grad(out, (q, k, v), inputs.grad_out))


def check(inputs, top_k, *, block_size=64, scale=None, **options):
    """Asserts the error rule for out, dq, dk, dv, with the backend's own choice of blocks."""
    if isinstance(top_k, int):
        top_k = budgets([top_k], inputs.q.device)
    selection = select_blocks(
        inputs.q,
        inputs.k,
        inputs.cu_seqlens,
        top_k,
        block_size=block_size,
        max_seqlen=inputs.max_seqlen,
        backend="triton",
    )
    scale = inputs.q.shape[2] ** -0.5 if scale is None else scale
    exact = attend_masked(inputs.to(torch.float64), selection, scale=scale)
    baseline = attend_masked(inputs, selection, scale=scale)
    got = run(inputs, top_k, block_size=block_size, scale=scale, **options)
    for name, ours, true, plain in zip(
        ("out", "dq", "dk", "dv"), got, exact, baseline, strict=True
    ):
        if inputs.q.shape[0] == 1 and name in ("dq", "dk"):  # exactly 0: no scale to compare with
            assert_close(name, ours + 1, true + 1, tolerance=1e-6)
        else:
            assert_error_rule(name, ours, true, plain)


def budgets(values, device):
    return torch.tensor(values, dtype=torch.int32, device=device)


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("deterministic", [False, True])
def test_packed_sequences_with_empty_and_one_token_ones(deterministic, device):
    top_k = budgets(ODD_BUDGETS, device)
    check(inputs_of(ODD, device=device), top_k, deterministic=deterministic)


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize(
    ("heads", "head_dim", "block_size"),
    [((1, 1), 64, 128), ((2, 2), 128, 64), ((8, 1), 16, 64), ((4, 2), 24, 64), ((1, 1), 128, 256)],
)
def test_heads_head_dims_and_block_sizes(heads, head_dim, block_size, device):
    inputs = inputs_of(
        (2 * block_size + 70,), heads=heads, head_dim=head_dim, dtype=torch.float16, device=device
    )
    check(inputs, 2, block_size=block_size)


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("length", [1, 63, 64, 65, 128, 129])
def test_lengths_around_the_block_size(length, device):
    check(inputs_of((length,), device=device), 2)


@pytest.mark.usefixtures("layout")
def test_the_own_block_alone(device):
    inputs = inputs_of((150, 64), device=device)
    lengths = (64, 64, 22, 64)
    cut = replace(
        inputs,
        cu_seqlens=torch.tensor([0, *lengths], device=device).cumsum(0).int(),
        max_seqlen=64,
    )
    for ours, wanted in zip(run(inputs, 1), run(cut, 9, backend="reference"), strict=True):
        assert_close("top_k = 1", ours, wanted, tolerance=2e-6)


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("top_k", [6, 1000])
def test_a_budget_of_all_blocks_is_dense_causal_attention(top_k, device):
    inputs = inputs_of((333,), device=device)
    q, k, v = (x.detach().requires_grad_() for x in (inputs.q, inputs.k, inputs.v))
    dense = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(0, 1)[None] for x in (q, k, v)), is_causal=True, enable_gqa=True
    )[0].transpose(0, 1)
    wanted = (dense.detach(), *torch.autograd.grad(dense, (q, k, v), inputs.grad_out))
    for ours, true in zip(run(inputs, top_k), wanted, strict=True):
        assert_close("dense", ours, true, tolerance=5e-6)


@pytest.mark.parametrize("factor", [30.0, 1e-3])
@pytest.mark.usefixtures("layout")
def test_large_and_small_logits(factor, device):
    inputs = inputs_of((400,), dtype=torch.float16, device=device)
    check(replace(inputs, q=inputs.q * factor), 3)


def test_a_logit_too_far_above_the_own_block_is_done_again(monkeypatch, device):
    monkeypatch.setattr(forward, "max_inflation_of", lambda head_dim: GATHER)
    monkeypatch.setattr(forward, "SMALL_WORK_FLOPS", 0)
    inputs = inputs_of((256, 80), dtype=torch.float16, device=device)
    k = inputs.k * 0.01
    k[:64] = 40.0
    inputs = replace(inputs, q=inputs.q.abs(), k=k)  # block 0 lies some 1000 above the own one
    check(inputs, 2)


@pytest.mark.usefixtures("layout")
def test_a_block_that_nobody_chose_and_one_that_all_chose(device):
    inputs = inputs_of((400,), device=device)
    k = inputs.k.clone()
    k[64:128] = 5.0
    k[128:192] = -5.0
    inputs = replace(inputs, q=inputs.q.abs(), k=k)
    check(inputs, 2)


@pytest.mark.usefixtures("layout")
def test_strided_inputs(device):
    inputs = inputs_of((200, 30), heads=(4, 2), device=device)
    strided = replace(
        inputs,
        q=inputs.q.transpose(0, 1).contiguous().transpose(0, 1),
        k=inputs.k.repeat(1, 1, 2)[..., :32],
        v=inputs.v.transpose(0, 2).contiguous().transpose(0, 2),
        grad_out=inputs.grad_out.transpose(0, 2).contiguous().transpose(0, 2),
    )
    check(strided, 2)


@pytest.mark.usefixtures("layout")
def test_packed_equals_one_by_one(device):
    lengths = (150, 0, 1, 200)
    inputs = inputs_of(lengths, device=device)
    packed = run(inputs, budgets([2, 1, 3, 3], device))
    start = 0
    for length, top_k in zip(lengths, (2, 1, 3, 3), strict=True):
        if length:
            part = slice(start, start + length)
            single = replace(
                inputs,
                q=inputs.q[part],
                k=inputs.k[part],
                v=inputs.v[part],
                grad_out=inputs.grad_out[part],
                cu_seqlens=budgets([0, length], device),
                max_seqlen=length,
            )
            for whole, alone in zip(packed, run(single, top_k), strict=True):
                # dq and dk of one token are 0 up to rounding: no scale to compare with.
                shift = float(length == 1)
                assert_close("packed", whole[part] + shift, alone + shift, tolerance=2e-6)
        start += length


def test_deterministic_gradients_repeat_bitwise(device):
    inputs = inputs_of((200, 70), heads=(4, 2), device=device)
    first = run(inputs, 3, deterministic=True)
    for _ in range(2):
        for a, b in zip(first, run(inputs, 3, deterministic=True), strict=True):
            assert torch.equal(a, b)


def test_a_given_selection_is_used_as_it_is(device):
    inputs = inputs_of((300, 90), device=device)
    sizes = {"block_size": 64, "max_seqlen": inputs.max_seqlen}
    narrow = select_blocks(inputs.q, inputs.k, inputs.cu_seqlens, 2, backend="reference", **sizes)
    wanted = run(inputs, 2)
    # top_k is not read when a selection is given
    for ours, true in zip(run(inputs, 9, selection=narrow), wanted, strict=True):
        assert_close("selection", ours, true, tolerance=2e-6)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(use_reentrant, device):
    inputs = inputs_of((200, 60), device=device)
    q, k, v = (x.detach().requires_grad_() for x in (inputs.q, inputs.k, inputs.v))

    def attend(q, k, v):
        return moba_attention(
            q * 1.0,
            k,
            v,
            inputs.cu_seqlens,
            2,
            block_size=64,
            max_seqlen=200,
            deterministic=True,
            backend="triton",
        )

    out = checkpoint(attend, q, k, v, use_reentrant=use_reentrant)
    out.backward(inputs.grad_out)
    wanted = run(inputs, 2, deterministic=True)[1:]
    for ours, true in zip((q.grad, k.grad, v.grad), wanted, strict=True):
        assert torch.equal(ours, true)


def test_the_operators_are_registered_rightly(device):
    inputs = inputs_of((100, 0, 30), device=device)
    top_k = budgets([2, 1, 1], device)
    # The dynamic checks compare all of the words, of which some are never written.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    choose = (inputs.q, inputs.k, inputs.cu_seqlens, top_k, 64, 100)
    torch.library.opcheck(select_op, choose, test_utils=checks)
    q, k, v = (x.detach().requires_grad_() for x in (inputs.q, inputs.k, inputs.v))
    attend = (q, k, v, *select_op(*choose), 64, 1, 2, 0.2, True)
    torch.library.opcheck(forward_op, attend, test_utils=checks)
    cover = (inputs.q, inputs.k, inputs.cu_seqlens, 64, 100, [1, 2], 16, 0.2)
    torch.library.opcheck(coverage_op, cover)


def test_a_compiled_model_holds_the_operators_whole(device):
    inputs = inputs_of((100, 30), device=device)
    top_k = budgets([2, 2], device)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def model(q, k, v):
        # The backend itself: on a CPU the public function reads the boundaries to check them.
        out = op.attend(
            q + 0.0,
            k,
            v,
            inputs.cu_seqlens,
            top_k,
            block_size=64,
            max_seqlen=100,
            top_k_range=ANY_TOP_K,
            scale=32**-0.5,
            selection=None,
            deterministic=True,
        )
        return out * 1.0

    q, k, v = (x.detach().requires_grad_() for x in (inputs.q, inputs.k, inputs.v))
    model(q, k, v).backward(inputs.grad_out)
    wanted = run(inputs, 2, deterministic=True)[1:]
    for ours, true in zip((q.grad, k.grad, v.grad), wanted, strict=True):
        assert_close("compiled", ours, true, tolerance=2e-6)


def test_no_tokens_at_all(device):
    inputs = inputs_of((0, 0), device=device)
    for got in run(inputs, 3):
        assert got.shape[0] == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"block_size": 48}, "block_size"),
        ({"scale": -1.0}, "scale"),
        ({"head_dim": 256}, "head_dim"),
        ({"dtype": torch.float64}, "q.dtype"),
    ],
)
def test_what_the_kernels_cannot_do_is_refused(change, word, device):
    inputs = inputs_of(
        (10,),
        head_dim=change.pop("head_dim", 16),
        dtype=change.pop("dtype", torch.float32),
        device=device,
    )
    with pytest.raises(ValueError, match=word):
        run(inputs, 1, **{"block_size": 64, **change})
