"""How often a call goes to the device: short calls wait for the host, launch by launch."""

from collections import Counter

import pytest
import torch
from triton.runtime import interpreter

from sbkernels import moba_attention
from sbkernels.testing import make_inputs

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="counts in the interpreter")
SELECT = ("_block_table_kernel", "_pool_kernel", "_select_kernel")
ROW_LISTS = ("_count_kernel", "_end_kernel", "_fill_kernel")
UNION = ("_union_kernel", "_forward_union_kernel")
GATHER = (*ROW_LISTS, "_layout_kernel", "_forward_gather_kernel", "_finish_kernel")
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
