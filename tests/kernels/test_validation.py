"""Wrong arguments are refused with the name, what came and what is wanted."""

import pytest
import torch

from sbkernels import coverage_curve, moba_attention, moba_attention_reference, select_blocks
from sbkernels.moba import backends

GOOD = {
    "q": torch.randn(20, 4, 8),
    "k": torch.randn(20, 2, 8),
    "v": torch.randn(20, 2, 8),
    "cu_seqlens": torch.tensor([0, 12, 20], dtype=torch.int32),
    "top_k": 2,
    "block_size": 4,
    "max_seqlen": 12,
}


def int32(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def selection_of(**changes):
    arguments = {name: value for name, value in (GOOD | changes).items() if name != "v"}
    return select_blocks(**arguments)


WRONG = {
    "rank of q": ({"q": torch.randn(20, 8)}, "q.shape: got (20, 8), wanted [tokens, heads"),
    "dtype of q": ({"q": torch.ones(20, 4, 8, dtype=torch.int64)}, "q.dtype: got torch.int64"),
    "rank of k": ({"k": torch.randn(20, 2, 8, 1)}, "k.shape: got (20, 2, 8, 1)"),
    "dtype of k": ({"k": GOOD["k"].double()}, "k.dtype: got torch.float64, wanted torch.float32"),
    "tokens of k": ({"k": torch.randn(19, 2, 8)}, "k.shape: got (19, 2, 8), wanted [20, "),
    "head dim of k": ({"k": torch.randn(20, 2, 4)}, "k.shape: got (20, 2, 4), wanted [20, "),
    "head ratio": (
        {"k": torch.randn(20, 3, 8), "v": torch.randn(20, 3, 8)},
        "number of query heads: got 4, wanted a multiple of the 3 key heads",
    ),
    "device of k": ({"k": torch.randn(20, 2, 8, device="meta")}, "k.device: got meta, wanted cpu"),
    "shape of v": ({"v": torch.randn(20, 2, 4)}, "v.shape: got (20, 2, 4), wanted (20, 2, 8)"),
    "dtype of v": ({"v": GOOD["v"].half()}, "v.dtype: got torch.float16, wanted torch.float32"),
    "dtype of boundaries": (
        {"cu_seqlens": torch.tensor([0, 12, 20])},
        "cu_seqlens: got torch.int64 (3,), wanted int32 [num_sequences + 1]",
    ),
    "shape of boundaries": ({"cu_seqlens": int32(0, 20)[None]}, "cu_seqlens: got torch.int32 (1, "),
    "no sequence": ({"cu_seqlens": int32(0)}, "at least one sequence"),
    "first boundary": (
        {"cu_seqlens": int32(1, 12, 20)},
        "cu_seqlens: got 1 ... 20, wanted 0 ... 20",
    ),
    "last boundary": (
        {"cu_seqlens": int32(0, 12, 19)},
        "cu_seqlens: got 0 ... 19, wanted 0 ... 20",
    ),
    "falling boundaries": ({"cu_seqlens": int32(0, 12, 8, 20)}, "boundaries that never fall"),
    "block_size": ({"block_size": 0}, "block_size: got 0, wanted an int, at least 1 token"),
    "max_seqlen": ({"max_seqlen": 11}, "max_seqlen: got 11, wanted at least the longest"),
    "max_seqlen on device": (
        {"max_seqlen": torch.tensor(12)},
        "max_seqlen: got 12, wanted an int",
    ),
    "top_k int": ({"top_k": 0}, "top_k: got 0, wanted an int, at least 1"),
    "top_k float": ({"top_k": 2.0}, "top_k: got 2.0, wanted an int"),
    "top_k values": ({"top_k": int32(2, 0)}, "top_k: got [2, 0], wanted at least 1 everywhere"),
    "top_k dtype": ({"top_k": torch.tensor([2, 2])}, "top_k: got torch.int64 (2,), wanted an int,"),
    "top_k shape": ({"top_k": int32(2, 2, 2)}, "int32 [2] or int32 [1]"),
    "backend": ({"backend": "cuda"}, "got 'cuda', wanted one of auto, triton, torch, reference"),
    "selection tokens": (
        {"selection": selection_of(cu_seqlens=int32(0, 0, 4, 12, 20))},
        "selection (heads, tokens, sequences): got (4, 20, 4), wanted (4, 20, 2)",
    ),
    "selection sizes": (
        {"selection": selection_of(block_size=8)},
        "selection (block_size, max_seqlen): got (8, 12), wanted (4, 12)",
    ),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG.keys())
def test_attention_refuses(changes, message):
    with pytest.raises(ValueError, match=r"^sbkernels: ") as caught:
        moba_attention(**(GOOD | changes))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", [n for n in WRONG if n != "backend"])
def test_the_reference_refuses_the_same(name):
    changes, message = WRONG[name]
    with pytest.raises(ValueError, match=r"^sbkernels: ") as caught:
        moba_attention_reference(**(GOOD | changes))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", [n for n in WRONG if " v" not in n and "selection" not in n])
def test_selection_refuses_the_same(name):
    changes, message = WRONG[name]
    with pytest.raises(ValueError, match=r"^sbkernels: ") as caught:
        selection_of(**{key: value for key, value in changes.items() if key != "v"})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ladder": []}, "ladder: got ()"),
        ({"ladder": [0, 1]}, "ladder: got (0, 1), wanted values of top_k, at least 1"),
        ({"ladder": [1, 2, 2]}, "strictly ascending"),
        ({"row_stride": 0}, "row_stride: got 0, wanted at least 1 row"),
        ({"cu_seqlens": int32(0, 12, 21)}, "cu_seqlens: got 0 ... 21"),
        ({"backend": "none"}, "wanted one of auto, triton, torch, reference"),
    ],
)
def test_coverage_refuses(changes, message):
    arguments = {name: GOOD[name] for name in ("q", "k", "cu_seqlens", "block_size", "max_seqlen")}
    with pytest.raises(ValueError, match=r"^sbkernels: ") as caught:
        coverage_curve(**(arguments | {"ladder": [1, 2]} | changes))
    assert message in str(caught.value)


def test_the_torch_backend_refuses_a_selection_that_it_cannot_read():
    class Other(backends.BlockSelection):
        num_heads_and_tokens = (4, 20)

        def membership(self):
            raise NotImplementedError

    other = Other(top_k=int32(2, 2), block_size=4, max_seqlen=12)
    with pytest.raises(ValueError, match="got Other, wanted RankedSelection"):
        moba_attention(**GOOD, selection=other, backend="torch")


def test_auto_is_triton_on_cuda_and_torch_elsewhere(monkeypatch):
    monkeypatch.setattr(backends, "import_module", lambda name: name)
    assert backends.load_backend("auto", torch.device("cuda")) == backends.BACKENDS["triton"]
    assert backends.load_backend("auto", torch.device("cpu")) == backends.BACKENDS["torch"]


def test_values_on_other_devices_are_clamped_and_not_read():
    from sbkernels.moba.budget import ANY_TOP_K, normalize_top_k

    # A meta tensor has no values: reading one would raise.
    boundaries = torch.empty(3, dtype=torch.int32, device="meta")
    top_k = torch.empty(1, dtype=torch.int32, device="meta")
    assert normalize_top_k(top_k, boundaries, ANY_TOP_K).shape == (2,)
