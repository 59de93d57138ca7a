"""How often a call goes to the device: short calls wait for the host, launch by launch."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime import interpreter

from sbcore.attention.call import AttentionCall
from sbcore.tune.layer_clamp import ClampLimits, DeviceMeasure, LayerTables
from sbkernels import coverage_curve, moba_attention
from sbkernels.moba.triton import forward
from sbkernels.testing import make_inputs

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="counts in the interpreter")
SELECT = ("_block_table_kernel", "_pool_kernel", "_select_kernel")
ROW_LISTS = ("_count_kernel", "_end_kernel", "_fill_kernel")
UNION = ("_union_kernel", "_forward_union_kernel")
GATHER = (*ROW_LISTS, "_layout_kernel", "_forward_gather_kernel", "_finish_kernel")
CURVE = ("_pool_kernel", "coverage_kernel")
BACKWARD = (*ROW_LISTS, "_stats_kernel", "_backward_gather_kernel")


@pytest.fixture
def launched(monkeypatch) -> Counter:
    """Returns the launches by kernel; nothing runs, so values are what memory held."""
    names: Counter = Counter()

    def launch(self, *_args, **_options):
        names[self.fn.__name__] += 1

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", launch)
    return names


@pytest.mark.parametrize(
    ("num_tokens", "forward"),
    [(512, (*SELECT, *UNION)), (8192, (*SELECT, *UNION, *GATHER, "_forward_union_kernel"))],
)
def test_a_call_launches_each_kernel_once(num_tokens, forward, launched):
    inputs = make_inputs(
        (num_tokens,),
        num_heads=16,
        num_kv_heads=2,
        head_dim=128,
        family="iid",
        seed=0,
        dtype=torch.bfloat16,
        device="cpu",
    )
    q, k, v = (x.requires_grad_() for x in (inputs.q, inputs.k, inputs.v))
    top_k = torch.tensor([2], dtype=torch.int32)
    sizes = {"block_size": 256, "max_seqlen": num_tokens, "backend": "triton"}
    out = moba_attention(q, k, v, inputs.cu_seqlens, top_k, **sizes)
    assert launched == Counter(forward)
    launched.clear()
    torch.autograd.grad(out, (q, k, v), inputs.grad_out)
    assert launched == Counter(BACKWARD)


@pytest.mark.parametrize("promise", [{}, {"min_top_k": 2, "max_top_k": 2}])
def test_the_number_of_sequences_compiles_nothing(promise, monkeypatch):
    """What kernels are compiled for is the same for packs of 1, 3 and 200 sequences."""
    compiled: set[tuple[object, ...]] = set()

    def launch(self, *_args, **options):
        compiled.add((self.fn.__name__, *sorted(options.items())))

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", launch)
    monkeypatch.setattr(forward, "SMALL_WORK_FLOPS", 0)  # the gather's kernels as well
    sizes = {"block_size": 64, "max_seqlen": 8000, "backend": "triton"}
    seen = []
    for lengths in ((8000,), (4000, 90, 3910), (40,) * 200):
        inputs = pack_of(lengths)
        q, k, v = (x.requires_grad_() for x in (inputs.q, inputs.k, inputs.v))
        top_k = torch.full((len(lengths),), 2, dtype=torch.int32)
        out = moba_attention(q, k, v, inputs.cu_seqlens, top_k, **promise, **sizes)
        torch.autograd.grad(out, (q, k, v), inputs.grad_out)
        coverage_curve(q, k, inputs.cu_seqlens, ladder=(1, 2, 3), **sizes)
        seen.append(len(compiled))
    assert seen == [len(compiled)] * 3
    assert {name for name, *_ in compiled} == {*SELECT, *UNION, *GATHER, *BACKWARD, *CURVE}


class Calls(TorchDispatchMode):
    """Counts what goes to the library."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names[str(func)] += 1
        return func(*args, **(kwargs or {}))


def pack_of(lengths):
    return make_inputs(
        lengths,
        num_heads=14,
        num_kv_heads=2,
        head_dim=64,
        family="iid",
        seed=0,
        dtype=torch.bfloat16,
        device="cpu",
    )


def test_a_curve_is_three_launches(launched):
    inputs = pack_of((700, 90))
    sizes = {"block_size": 256, "max_seqlen": 700, "backend": "triton"}
    coverage_curve(inputs.q, inputs.k, inputs.cu_seqlens, ladder=(1, 2, 3), **sizes)
    assert launched == Counter(("_block_table_kernel", *CURVE))


@pytest.mark.parametrize("limits", [None, ClampLimits(p=0.1, floor=1, cap=8)])
def test_a_tuned_layer_is_two_launches_and_one_piece_of_memory(limits, launched):
    inputs = pack_of((700, 90))
    rungs = (1, 2, 3)
    tables = LayerTables(
        targets=torch.ones(24, 4, dtype=torch.int32),
        budgets=torch.ones(24, 4, dtype=torch.int32),
        curves=torch.ones(24, 2, 3),
        ladder=torch.tensor(rungs, dtype=torch.int32),
        rungs=rungs,
        base_rung=1,
        limits=limits,
    )
    call = AttentionCall(inputs.cu_seqlens, (700, 90), 256, "triton", budgets=None)
    layers = DeviceMeasure(tables, inputs.q, inputs.k, call)
    assert launched == Counter(["_block_table_kernel"])
    launched.clear()
    with Calls() as calls:
        layers.measure(0, inputs.q, inputs.k)
    assert launched == Counter(CURVE)
    assert calls.names == Counter(["aten.new_empty.default"])
