"""Wrong arguments are refused with the name, what came and what is wanted."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sbkernels import coverage_curve, moba_attention, moba_attention_reference, select_blocks
from sbkernels.moba import backends
from sbkernels.moba.budget import ANY_TOP_K, TopKRange, normalize_range, normalize_top_k

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
    "no key heads": (
        {"k": torch.randn(20, 0, 8), "v": torch.randn(20, 0, 8)},
        "number of query heads: got 4, wanted a multiple of the 0 key heads",
    ),
    "no query heads": (
        {"q": torch.randn(20, 0, 8)},
        "number of query heads: got 0, wanted a multiple of the 2 key heads",
    ),
    "selection length": (
        {"selection": selection_of(max_seqlen=16)},
        "selection (block_size, max_seqlen): got (4, 16), wanted (4, 12)",
    ),
    "negative max_seqlen": ({"max_seqlen": -1}, "max_seqlen: got -1, wanted an int"),
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


def test_packs_without_tokens_have_no_longest_sequence():
    empty = {name: torch.zeros(0, heads, 8) for name, heads in (("q", 4), ("k", 2), ("v", 2))}
    out = moba_attention(**(GOOD | empty | {"cu_seqlens": int32(0, 0), "max_seqlen": 0}))
    assert out.shape == (0, 4, 8)
    selection = selection_of(**empty, cu_seqlens=int32(0, 0), max_seqlen=0)
    assert selection.membership().shape == (4, 0, 1)


def normalized(top_k, least, most):
    return tuple(normalize_range(top_k, min_top_k=least, max_top_k=most))


def test_an_int_is_known_and_a_tensor_as_far_as_it_is_promised():
    tensor = int32(2, 3)
    assert normalized(3, None, None) == normalized(3, 1, 3) == normalized(3, 3, 9) == (3, 3)
    assert normalized(tensor, None, None) == tuple(ANY_TOP_K)
    assert normalized(tensor, 2, None) == (2, ANY_TOP_K.most)
    assert normalized(tensor, 3, 3) == (3, 3)


@pytest.mark.parametrize(
    ("top_k", "least", "most", "message"),
    [
        (3, 4, None, r"top_k: got 3, wanted 4 \(min_top_k\) to"),
        (3, None, 2, r"top_k: got 3, wanted 1 \(min_top_k\) to 2 \(max_top_k\)"),
        (3, 0, None, "min_top_k: got 0, wanted an int, at least 1"),
        (3, None, 0, "max_top_k: got 0, wanted an int, at least 1"),
        (3, 2.0, None, "min_top_k: got 2.0, wanted an int"),
        (3, 3, 2, "min_top_k: got 3, wanted at most max_top_k, 2"),
    ],
)
def test_promises_that_cannot_be_kept_are_refused(top_k, least, most, message):
    with pytest.raises(ValueError, match=message):
        normalized(top_k, least, most)


@pytest.mark.parametrize("values", [(2, 5), (1, 4)])
def test_a_tensor_outside_its_promise_is_refused_where_it_can_be_seen(values):
    boundaries = int32(0, 12, 20)
    with pytest.raises(ValueError, match=r"top_k: got \[\d, \d\], wanted 2 .* to 4"):
        normalize_top_k(int32(*values), boundaries, TopKRange(2, 4))
    assert normalize_top_k(int32(2, 4), boundaries, TopKRange(2, 4)).tolist() == [2, 4]


def test_a_budget_covers_as_many_blocks_as_its_least_value():
    assert [TopKRange(3, 9).covers(blocks) for blocks in (2, 3, 4)] == [True, True, False]


class Clamps(TorchDispatchMode):
    """Notes the bounds that values are clamped to."""

    def __init__(self):
        super().__init__()
        self.bounds = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if str(func).startswith("aten.clamp."):
            self.bounds.append(args[1:])
        return func(*args, **(kwargs or {}))


def test_values_on_other_devices_are_clamped_and_not_read():
    # A meta tensor has no values: reading one would raise.
    boundaries = torch.empty(3, dtype=torch.int32, device="meta")
    top_k = torch.empty(1, dtype=torch.int32, device="meta")
    with Clamps() as clamps:
        assert normalize_top_k(top_k, boundaries, TopKRange(2, 4)).shape == (2,)
    assert clamps.bounds == [(2, 4)]
