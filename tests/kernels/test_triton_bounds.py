"""What the triton backend does with a range of top_k that the host knows, and head windows."""

import pytest
import torch

from sbkernels import moba_attention, select_blocks
from sbkernels.graphs import captured
from sbkernels.moba.budget import ANY_TOP_K, TopKRange
from sbkernels.moba.triton import forward, op, windows
from sbkernels.moba.triton.blocks import build_block_table
from sbkernels.moba.triton.lists import bound_inflation
from sbkernels.moba.triton.rows import bound_pairs, build_row_lists
from sbkernels.testing import (
    PackedInputs,
    assert_close,
    assert_error_rule,
    attend_masked,
    make_inputs,
)

NAMES = ("out", "dq", "dk", "dv")


def inputs_of(lengths, device, *, heads=(2, 1)) -> PackedInputs:
    return make_inputs(
        lengths,
        num_heads=heads[0],
        num_kv_heads=heads[1],
        head_dim=16,
        family="iid",
        seed=0,
        dtype=torch.float32,
        device=device,
    )


def run(inputs, top_k, **options):
    """Returns out, dq, dk, dv with top_k on the device, whatever is promised of it."""
    q, k, v = (x.detach().requires_grad_() for x in (inputs.q, inputs.k, inputs.v))
    values = torch.tensor(top_k, dtype=torch.int32, device=q.device)
    sizes = {"block_size": 64, "max_seqlen": inputs.max_seqlen, "backend": "triton"}
    out = moba_attention(q, k, v, inputs.cu_seqlens, values, **sizes, **options)
    return (out.detach(), *torch.autograd.grad(out, (q, k, v), inputs.grad_out))


def assert_same(got, wanted):
    for name, ours, true in zip(NAMES, got, wanted, strict=True):
        assert_close(name, ours, true, tolerance=3e-6)


@pytest.fixture(autouse=True)
def few_rows_are_worth_a_call(monkeypatch):
    monkeypatch.setattr(op, "MIN_DENSE_ROWS", 0)


@pytest.fixture
def dense_rows(monkeypatch):
    """Returns the numbers of rows that the library's dense attention did."""
    rows = []

    def attend(q, k, v, *, scale, _inner=op.attend_dense):
        rows.append(q.shape[0])
        return _inner(q, k, v, scale=scale)

    monkeypatch.setattr(op, "attend_dense", attend)
    return rows


@pytest.mark.parametrize("max_inflation", [1e30, 0.0])
@pytest.mark.parametrize(
    ("length", "top_k", "rows"), [(150, 3, [150]), (150, 9, [150]), (200, 2, [128]), (270, 2, [])]
)
def test_rows_that_see_all_blocks_are_dense(
    length, top_k, rows, max_inflation, dense_rows, monkeypatch, device
):
    monkeypatch.setattr(forward, "max_inflation_of", lambda head_dim: max_inflation)
    monkeypatch.setattr(forward, "SMALL_WORK_FLOPS", 0)
    inputs = inputs_of((length,), device)
    bounded = run(inputs, [top_k], min_top_k=top_k, max_top_k=top_k)
    assert dense_rows == rows
    sizes = {"block_size": 64, "max_seqlen": length, "backend": "triton"}
    selection = select_blocks(inputs.q, inputs.k, inputs.cu_seqlens, top_k, **sizes)
    exact = attend_masked(inputs.to(torch.float64), selection, scale=0.25)
    baseline = attend_masked(inputs, selection, scale=0.25)
    for name, ours, true, plain in zip(NAMES, bounded, exact, baseline, strict=True):
        assert_error_rule(name, ours, true, plain)
    assert_same(bounded, run(inputs, [top_k]))


def test_a_few_dense_rows_are_not_worth_a_call(monkeypatch):
    monkeypatch.setattr(op, "MIN_DENSE_ROWS", 4096)
    known = TopKRange(32, 32)
    counts = [op.count_dense_rows(n, known, block_size=64) for n in (2048, 2049, 4000)]
    assert counts == [2048, 0, 0]
    counts = [op.count_dense_rows(n, known, block_size=256) for n in (8192, 16384, 16385)]
    assert counts == [8192, 8192, 0]


def test_packed_and_deterministic_calls_keep_to_the_kernels(dense_rows, device):
    inputs = inputs_of((70, 130), device)
    known = run(inputs, [3, 3], min_top_k=3)
    assert_same(known, run(inputs, [3, 3]))
    run(inputs_of((130,), device), [3], min_top_k=3, deterministic=True)
    assert dense_rows == []


def test_a_selection_brings_its_range_along(dense_rows, device):
    inputs = inputs_of((300,), device)
    top_k = torch.tensor([5], dtype=torch.int32, device=device)
    sizes = {"block_size": 64, "max_seqlen": 300, "backend": "triton"}
    here = (inputs.q, inputs.k, inputs.cu_seqlens, top_k)
    selection = select_blocks(*here, **sizes, min_top_k=5, max_top_k=6)
    moba_attention(inputs.q, inputs.k, inputs.v, *here[2:], **sizes, selection=selection)
    assert selection.top_k_range == (5, 6)
    assert dense_rows == [300]


@pytest.mark.parametrize("max_inflation", [1e30, 0.0])
@pytest.mark.parametrize("heads", [(3, 3), (4, 2), (3, 1)])
def test_windows_of_heads_change_nothing(heads, max_inflation, monkeypatch, device):
    monkeypatch.setattr(forward, "max_inflation_of", lambda head_dim: max_inflation)
    monkeypatch.setattr(forward, "SMALL_WORK_FLOPS", 0)
    inputs = inputs_of((130, 0, 40), device, heads=heads)
    whole = run(inputs, [2, 1, 2])
    monkeypatch.setattr(windows, "SUMS_BYTES", 2 * 4 * 170 * 16)  # two heads
    assert [len(w) for w in windows.head_windows(heads[0], 170, 16)] == [2, heads[0] - 2]
    assert_same(run(inputs, [2, 1, 2]), whole)


def test_windows_are_even_and_hold_all_heads(monkeypatch):
    monkeypatch.setattr(windows, "SUMS_BYTES", 4 * 10 * 8 * 7)
    assert windows.head_windows(16, 10, 8) == [range(0, 6), range(6, 12), range(12, 16)]
    assert windows.head_windows(2, 10**9, 128) == [range(0, 1), range(1, 2)]
    assert windows.head_windows(5, 0, 8) == [range(0, 5)]


@pytest.mark.parametrize("max_top_k", [1, 2, 4, 1000])
@pytest.mark.parametrize("lengths", [(640,), (64, 500, 0, 1, 130), (256, 256), (63,)])
def test_row_lists_fit_the_bound_and_no_more(lengths, max_top_k, device):
    inputs = inputs_of(lengths, device)
    sizes = {"block_size": 64, "max_seqlen": max(lengths), "backend": "triton"}
    here = (inputs.q, inputs.k, inputs.cu_seqlens)
    selection = select_blocks(*here, max_top_k, **sizes)
    table = build_block_table(inputs.cu_seqlens, sum(lengths), block_size=64)
    lists = build_row_lists(selection.words, table, None, max_top_k=max_top_k, num_skipped=0)
    num_pairs = int(lists.counts.sum())
    assert num_pairs <= lists.rows.numel()
    assert lists.rows.dtype == torch.int16
    if len(lengths) == 1 and lengths[0] % 64 == 0:
        assert max(1, num_pairs) == lists.rows.numel()


def test_the_bound_of_pairs_holds_for_every_split():
    for max_top_k in (1, 2, 5):
        for split in ([4, 3, 1], [4, 4], [1] * 8, [3, 3, 2]):
            pairs = sum(min(own, max_top_k - 1) for n in split for own in range(n))
            assert pairs <= bound_pairs(8, max_num_blocks=max(split), max_top_k=max_top_k)


def test_the_worst_inflation_is_that_of_a_full_union():
    assert bound_inflation(64, min_top_k=32) == pytest.approx(2016 / 1488)
    assert bound_inflation(20, min_top_k=32) == 1.0
    assert bound_inflation(20, min_top_k=1) == float("inf")
    assert bound_inflation(1, min_top_k=1) == float("inf")


def test_a_wrong_promise_is_refused_where_it_is_seen():
    inputs = inputs_of((300,), "cpu")
    for top_k, promise in (([5], {"max_top_k": 4}), ([1], {"min_top_k": 2})):
        with pytest.raises(ValueError, match=r"top_k: got .*, wanted \d+ \(min_top_k\) to"):
            run(inputs, top_k, **promise)
    with pytest.raises(ValueError, match="min_top_k: got 0"):
        run(inputs, [1], min_top_k=0)
    with pytest.raises(ValueError, match="min_top_k: got 3, wanted at most max_top_k, 2"):
        run(inputs, [1], min_top_k=3, max_top_k=2)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("top_k", "promise", "as_if"),
    [(40, {"max_top_k": 4}, 4), (1, {"min_top_k": 3}, 3), (3, {"min_top_k": 9}, 9)],
)
def test_a_wrong_promise_is_kept_by_force_on_the_device(top_k, promise, as_if):
    inputs = inputs_of((900,), "cuda")
    assert_same(run(inputs, [top_k], **promise), run(inputs, [as_if]))


@pytest.mark.gpu
@pytest.mark.parametrize("length", [700, 1400])  # all rows, and half of them, see all blocks
def test_a_known_range_needs_no_synchronisation_and_serves_a_graph(length):
    inputs = inputs_of((length,), "cuda").to(torch.bfloat16)
    top_k = torch.tensor([12], dtype=torch.int32, device="cuda")
    q, k, v = (x.detach().requires_grad_() for x in (inputs.q, inputs.k, inputs.v))

    def step():
        sizes = {"block_size": 64, "max_seqlen": length, "min_top_k": 12, "max_top_k": 16}
        out = moba_attention(q, k, v, inputs.cu_seqlens, top_k, **sizes)
        return (out.detach(), *torch.autograd.grad(out, (q, k, v), inputs.grad_out))

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    replay = captured(step)
    for value in (12, 14, 16):
        top_k.fill_(value)
        for name, ours, wanted in zip(NAMES, replay(), step(), strict=True):
            assert_close(f"{name} {value}", ours, wanted, tolerance=0.01)


@pytest.mark.gpu
def test_a_compiled_model_takes_dense_rows_whole():
    inputs = inputs_of((1400,), "cuda").to(torch.bfloat16)
    top_k = torch.tensor([12], dtype=torch.int32, device="cuda")

    @torch.compile(backend="aot_eager", fullgraph=True)
    def model(q, k, v):
        return op.attend(
            q * 1.0,
            k,
            v,
            inputs.cu_seqlens,
            top_k,
            block_size=64,
            max_seqlen=1400,
            top_k_range=TopKRange(12, 12),
            scale=0.25,
            selection=None,
            deterministic=False,
        )

    q, k, v = (x.detach().requires_grad_() for x in (inputs.q, inputs.k, inputs.v))
    out = model(q, k, v)
    got = (out.detach(), *torch.autograd.grad(out, (q, k, v), inputs.grad_out))
    for name, ours, wanted in zip(NAMES, got, run(inputs, [12]), strict=True):
        assert_close(name, ours, wanted, tolerance=0.02)


def test_broken_inputs_choose_no_more_than_the_budget(device):
    inputs = inputs_of((640,), device)
    k = inputs.k.clone()
    k[70], k[200], k[300], k[400] = float("nan"), float("inf"), -float("inf"), float("inf")
    q = inputs.q.abs()
    q[500] = float("nan")
    sizes = {"block_size": 64, "max_seqlen": 640}
    values = torch.tensor([3], dtype=torch.int32, device=device)
    selection = op.select(q, k, inputs.cu_seqlens, values, **sizes, top_k_range=ANY_TOP_K)
    num_chosen = selection.membership().sum(dim=2)
    assert int(num_chosen.max()) == 3
    assert int(num_chosen[:, 128:].min()) == 3
