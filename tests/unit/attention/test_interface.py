from types import SimpleNamespace

import pytest
import torch

from sbcore.attention import AttentionCall, FixedBudgets, interface
from sbcore.attention.dense import dense_attention
from sbcore.config.compute import AttentionConfig
from sbcore.config.training import ModelShape
from sbcore.errors import SparseBalanceError
from sbcore.model.build import build_model, load_model, set_default_attention, shape_config
from sbkernels import select_blocks
from sbkernels.moba.key_blocks import KeyBlocks
from sbkernels.moba.triton import supported

LENGTHS = (70, 200, 1, 33)
SHAPE = ModelShape(
    hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2
)


def small_model(family="qwen2"):
    if family == "qwen2":
        return build_model(
            shape_config(SHAPE, vocab_size=97, max_tokens=512), seed=0, dtype=torch.float32
        )
    from transformers import LlamaConfig, Qwen3Config

    make = {"llama": LlamaConfig, "qwen3": Qwen3Config}[family]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 97}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    return build_model(make(**sizes, **heads), seed=0, dtype=torch.float32)


def packed(lengths=LENGTHS):
    torch.manual_seed(1)
    ids = torch.randint(0, 97, (1, sum(lengths)))
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    return ids, positions, ends


def call_of(ends, lengths, top_k, *, keep=False, backend="torch"):
    budgets = None
    if top_k is not None:
        budgets = FixedBudgets.of(top_k, len(lengths), "cpu")
    return AttentionCall(ends, lengths, 16, backend, budgets, keep_choices=keep)


def logits(model, lengths=LENGTHS, top_k=2, **options):
    ids, positions, ends = packed(lengths)
    call = call_of(ends, lengths, top_k, **options)
    return model(input_ids=ids, position_ids=positions, use_cache=False, sb_call=call).logits[0]


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_all_blocks_equal_dense_attention(family):
    model = small_model(family)
    torch.testing.assert_close(logits(model, top_k=13), logits(model, top_k=None))


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_the_backend_equals_the_reference(family):
    model = small_model(family)
    torch.testing.assert_close(logits(model), logits(model, backend="reference"))


def test_fewer_blocks_change_long_sequences_only():
    model = small_model()
    sparse, dense = logits(model, top_k=5), logits(model, top_k=None)
    torch.testing.assert_close(sparse[:70], dense[:70])
    assert (sparse[70:270] - dense[70:270]).abs().max() > 1e-4


def test_sequences_of_a_pack_do_not_see_each_other():
    model = small_model()
    together = logits(model)
    ids, _, _ = packed()
    start = 0
    for n in LENGTHS:
        alone = model(
            input_ids=ids[:, start : start + n],
            position_ids=torch.arange(n)[None],
            use_cache=False,
            sb_call=call_of(torch.tensor([0, n], dtype=torch.int32), (n,), 2),
        ).logits[0]
        torch.testing.assert_close(together[start : start + n], alone)
        start += n


def test_recomputation_reuses_the_choice_and_gives_equal_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = small_model()
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        logits(model, keep=checkpointing).float().square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=0, atol=0)


class Drifting:
    """Answers another budget each time it is asked: recomputation must not ask again."""

    top_k_range = None

    def __init__(self):
        self.asked = 0

    def top_k(self, layer, q, k, call, *, means=None):
        self.asked += 1
        return torch.full((len(call.lengths),), 1 + self.asked, dtype=torch.int32)


def test_recomputation_never_asks_for_a_second_decision():
    model = small_model()
    model.train()
    model.gradient_checkpointing_enable()
    ids, positions, ends = packed()
    budgets = Drifting()
    call = AttentionCall(ends, LENGTHS, 16, "torch", budgets, keep_choices=True)
    out = model(input_ids=ids, position_ids=positions, use_cache=False, sb_call=call).logits
    out.sum().backward()
    assert budgets.asked == 2
    assert call.choices == {}


@pytest.mark.parametrize(("top_k", "selected"), [(12, [True, True]), (13, []), (40, [])])
def test_a_budget_of_all_blocks_selects_nothing(top_k, selected, monkeypatch):
    asked = []

    def select(*_args, **options):
        asked.append((options["min_top_k"], options["max_top_k"]) == (top_k, top_k))
        return select_blocks(*_args, **options)

    monkeypatch.setattr(interface, "select_blocks", select)
    model = small_model()
    sparse = logits(model, top_k=top_k)
    assert asked == selected
    if not selected:
        torch.testing.assert_close(sparse, logits(model, top_k=None), rtol=0, atol=0)


def test_packs_of_many_short_sequences_are_one_call():
    assert interface.suit_one_by_one((8192,) * 8)
    assert interface.suit_one_by_one((700,))
    assert not interface.suit_one_by_one((1024,) * 64)


class Dense:
    """Budgets of dense training: nothing is chosen."""

    top_k_range = None

    def top_k(self, layer, q, k, call, *, means=None):
        return None


@pytest.mark.parametrize("in_one", [True, False])
def test_dense_training_is_one_call_where_that_is_faster(in_one, monkeypatch):
    monkeypatch.setattr(interface, "_suits_one_call", lambda q, call: in_one)
    asked = []

    def select(q, k, ends, top_k, **options):
        asked.append((top_k.tolist(), options["min_top_k"], options["max_top_k"]))
        return select_blocks(q, k, ends, top_k, **options)

    monkeypatch.setattr(interface, "select_blocks", select)
    model = small_model()
    ids, positions, ends = packed()
    call = AttentionCall(ends, LENGTHS, 16, "torch", Dense())
    out = model(input_ids=ids, position_ids=positions, use_cache=False, sb_call=call).logits[0]
    assert asked == ([([13] * 4, 13, 13)] * 2 if in_one else [])
    torch.testing.assert_close(out, logits(model, top_k=None))


def test_budgets_that_the_host_does_not_know_are_selected():
    call = AttentionCall(
        torch.tensor([0, 40], dtype=torch.int32), (40,), 16, "torch", FixedBudgets(torch.ones(1))
    )
    assert call.top_k_range == (None, None)
    assert not call.covers_all
    assert FixedBudgets.of(3, 2, "cpu").value.tolist() == [3, 3]
    assert FixedBudgets.of(3, 2, "meta").value.is_meta


@pytest.mark.parametrize(
    ("known", "covers"),
    [((4, 4), True), ((4, 9), True), ((3, 9), False), ((1, 4), False), (None, False)],
)
def test_budgets_cover_all_where_the_least_reaches_the_first_token_of_the_longest(known, covers):
    budgets = FixedBudgets(torch.full((2,), 4, dtype=torch.int32), known)
    call = AttentionCall(packed((64, 10))[2], (64, 10), 16, "torch", budgets)
    assert call.covers_all == covers
    for tokens, num_blocks in ((63, 4), (64, 4), (65, 5)):
        one = AttentionCall(packed((tokens,))[2], (tokens,), 16, "torch", budgets)
        assert one.max_num_blocks == num_blocks
    assert not AttentionCall(packed((64,))[2], (64,), 16, "torch", None).covers_all


@pytest.mark.parametrize(("backend", "averaged"), [("auto", 1), ("torch", 1), ("reference", 0)])
def test_keys_are_averaged_once_for_a_layer_where_the_backend_uses_it(
    backend, averaged, monkeypatch
):
    """For the choice of blocks and for coverage; not at all where attention is dense."""
    for top_k, expected in ((2, averaged), (13, 0)):
        calls = []
        means = KeyBlocks.means
        monkeypatch.setattr(
            KeyBlocks, "means", lambda self, k, *, _m=means, _c=calls: _c.append(1) or _m(self, k)
        )
        logits(small_model(), top_k=top_k, backend=backend)
        assert len(calls) == 2 * expected, "two layers"
        monkeypatch.undo()
    call = call_of(packed()[2], LENGTHS, 2, backend=backend)
    assert (call.key_blocks is not None) == averaged, "for coverage too"
    assert call.key_blocks is call.key_blocks, "made once for all layers"
    on_gpu = AttentionCall(SimpleNamespace(is_cuda=True), LENGTHS, 16, backend, None)
    assert on_gpu.key_blocks is None, "kernels do it themselves"


def test_dense_attention_takes_the_scale_that_it_is_given():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(30, heads, 8, generator=generator) for heads in (4, 2, 2))
    for scale, factor in ((None, 8**-0.5), (0.7, 0.7)):
        found = dense_attention(q, k, v, (20, 10), scale=scale).split((20, 10))
        for part, *each in zip(found, *(x.split((20, 10)) for x in (q, k, v)), strict=True):
            keys, values = (x.repeat_interleave(2, 1).transpose(0, 1) for x in each[1:])
            scores = factor * each[0].transpose(0, 1) @ keys.transpose(1, 2)
            later = torch.ones_like(scores, dtype=torch.bool).triu(1)
            out = scores.masked_fill(later, -torch.inf).softmax(-1) @ values
            torch.testing.assert_close(part, out.transpose(0, 1))


def test_one_call_of_the_library_for_each_sequence_needs_few_or_long_ones():
    one_by_one = interface.suit_one_by_one
    assert one_by_one((10, 10))
    assert not one_by_one((10, 10, 10))
    assert one_by_one((4096, 4096, 4096))
    assert not one_by_one((4096, 4096, 4095))


def test_two_tokens_after_a_cache_are_refused():
    query, cached = torch.randn(1, 4, 2, 8), torch.randn(1, 2, 7, 8)
    with pytest.raises(
        ValueError, match="query: 2 tokens after a cache of 5: only one token"
    ) as no:
        interface._attend(None, query, cached, cached, None)
    assert str(no.value).endswith("prefill the whole prompt in one call.")


def test_generation_prefills_sparse_and_decodes_with_the_cache():
    model = small_model().eval()
    set_default_attention(model, "sparse", AttentionConfig(block_size=16, top_k=100))
    ids = packed((60,))[0]
    mask = torch.ones_like(ids)
    out = model.generate(
        ids, attention_mask=mask, max_new_tokens=4, do_sample=False, use_cache=True
    )
    for step in range(4):
        prefix = out[:, : 60 + step]
        expected = model(input_ids=prefix, use_cache=False).logits[0, -1].argmax()
        assert out[0, 60 + step] == expected


def test_padding_is_refused():
    model = small_model()
    set_default_attention(model, "sparse", AttentionConfig(block_size=16, top_k=2))
    ids = packed((40,))[0]
    mask = torch.ones_like(ids)
    torch.testing.assert_close(
        model(input_ids=ids, attention_mask=mask).logits, model(input_ids=ids).logits
    )
    assert interface._no_mask(attention_mask=mask) is None
    mask[0, 0] = 0
    with pytest.raises(ValueError, match="has padding") as caught:
        model(input_ids=ids, attention_mask=mask)
    assert str(caught.value) == (
        "attention_mask: has padding, shape (1, 40): sparsebalance takes packed sequences. pack "
        "the rows or pass one row at a time."
    )


def test_a_saved_model_keeps_its_weights_and_its_budget(tmp_path):
    model = small_model()
    set_default_attention(model, "sparse", AttentionConfig(block_size=16, top_k=3))
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path, dtype=torch.float32)
    assert again.config.sparsebalance["top_k"] == 3
    torch.testing.assert_close(logits(model), logits(again), rtol=0, atol=0)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(SparseBalanceError, match=r"config.json is missing\. give a Hugging Face"):
        load_model(tmp_path, dtype=torch.float32)


def test_another_family_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(SparseBalanceError, match="model_type = gpt2: not supported"):
        load_model(tmp_path, dtype=torch.float32)


def test_a_block_size_that_the_kernels_do_not_take_is_one_line():
    with pytest.raises(SparseBalanceError, match=r"attention.block_size = 16.*wanted one of") as no:
        logits(small_model(), backend="triton")
    assert str(no.value).endswith("change one of the two, or topology.device.")


def test_kernels_without_a_gpu_are_one_line(monkeypatch):
    monkeypatch.setattr(supported, "INTERPRETED", False)
    with pytest.raises(SparseBalanceError, match=r"backend = triton: .*got cpu, wanted a GPU"):
        logits(small_model(), backend="triton")
