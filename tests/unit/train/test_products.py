"""What products are noted of a micro-batch, and that doing them again meets those of another."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sbcore.attention import AttentionCall, FixedBudgets
from sbcore.config.lora import LoraConfig
from sbcore.model.build import build_model
from sbcore.model.lora import add_lora
from sbcore.model.loss import give_loss
from sbcore.model.own_forward import give_own_forward
from sbcore.train.products import _MOST_SIZES, _Operand, do_again, noted_products, token_counts


def small_model(*, lora):
    from transformers import Qwen2Config

    config = Qwen2Config(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    model = build_model(config, seed=0, dtype=torch.float32)
    if lora:
        add_lora(model, LoraConfig(rank=3, dropout=0.1))
        for name, weight in list(model.named_parameters()):
            if "lora_" in name:  # made without memory
                owner = model.get_submodule(name.removesuffix(".weight"))
                owner.weight = torch.nn.Parameter(torch.ones(weight.shape))
    give_own_forward(model)
    give_loss(model)
    return model.train()


def run(model, num_tokens, num_targets):
    ids = torch.arange(num_tokens)[None] % 97
    ends = torch.tensor([0, num_tokens], dtype=torch.int32)
    budgets = FixedBudgets.of(2, 1, torch.device("cpu"))
    model(
        input_ids=ids,
        position_ids=torch.arange(num_tokens)[None],
        predict_at=torch.arange(num_targets),
        labels=ids[0, :num_targets],
        sb_call=AttentionCall(ends, (num_tokens,), 16, "torch", budgets),
    ).backward()


def noted(work, num_tokens, num_targets):
    with noted_products(num_tokens, num_targets) as found:
        work()
    return found


@pytest.mark.parametrize("lora", [False, True])
def test_doing_them_again_meets_the_products_of_another_micro_batch(lora):
    model = small_model(lora=lora)
    here = noted(lambda: run(model, 70, 11), 70, 11)
    there = noted(lambda: run(model, 130, 26), 130, 26)
    assert here == there
    assert len(here) > 15  # three of each weight, some of them joined
    device = torch.device("cpu")
    again = noted(lambda: do_again(here, [130], share=0.2, device=device), 130, 26)
    assert again == there


def test_compiled_layers_are_noted_and_stay_compiled():
    layer, runs = torch.nn.Linear(32, 48), []

    def count(graph, _):
        return lambda *inputs: runs.append(1) or graph(*inputs)

    compiled = torch.compile(layer, dynamic=True, backend=count)
    compiled(torch.ones(50, 32))
    assert len(noted(lambda: compiled(torch.ones(70, 32)), 70, 11)) == 1
    assert len(runs) == 1
    compiled(torch.ones(90, 32))
    assert len(runs) == 2


def test_layers_alike_are_noted_once():
    one, two = (small_model(lora=False) for _ in range(2))
    one.model.layers = one.model.layers[:1]
    assert noted(lambda: run(one, 70, 11), 70, 11) == noted(lambda: run(two, 70, 11), 70, 11)


def test_rows_apart_in_memory_and_turned_matrices_are_made_as_they_were():
    x, w = torch.randn(70, 40)[:, :32], torch.randn(48, 32)
    by_weight = torch.randn(70, 48)

    def work():
        torch.mm(x, w.t())
        torch.mm(by_weight.t(), x)
        torch.zeros(48, 32).addmm_(by_weight.t(), x, beta=0, alpha=0.5)

    found = noted(work, 70, 9)
    assert len(found) == 3
    for product in found:
        made = [
            operand.make({"T": 90, "n": 9}, torch.device("cpu")) for operand in product.operands
        ]
        for tensor in made[-2:]:
            strides = {(90, 32): (40, 1), (32, 48): (1, 32), (48, 90): (1, 48)}
            assert tensor.stride() == strides[tuple(tensor.shape)]
    assert {dict(product.options).get("alpha") for product in found} == {None, 0.5}


@given(
    num_rows=st.sampled_from(["T", "n", 32, 1]),
    num_columns=st.sampled_from(["T", "n", 32, 48]),
    gap=st.sampled_from([0, 8]),
    turned=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_matrices_are_made_as_they_would_be_of_fewer_tokens(
    num_rows, num_columns, gap, turned, dtype
):
    def matrix(sizes):
        rows, columns = (sizes.get(size, size) for size in (num_rows, num_columns))
        whole = torch.empty(rows, columns + (gap if columns in (32, 48) else 0), dtype=dtype)
        return whole[:, :columns].t() if turned else whole[:, :columns]

    operand = _Operand.of(matrix({"T": 70, "n": 9}), {70: "T", 9: "n"})
    fewer = {"T": 50, "n": 4}
    made, wanted = operand.make(fewer, torch.device("cpu")), matrix(fewer)
    assert (made.shape, made.stride(), made.dtype) == (wanted.shape, wanted.stride(), dtype)


def test_a_column_a_vector_and_an_expanded_gradient_are_made_too():
    names, more = {70: "T"}, {"T": 90}
    kinds = torch.ones(70, 1), torch.ones(70, dtype=torch.bfloat16), torch.ones(1).expand(70, 32)
    column, vector, gradient = (
        _Operand.of(each, names).make(more, torch.device("cpu")) for each in kinds
    )
    assert (column.shape, column.stride()) == ((90, 1), (1, 1))
    assert (vector.shape, vector.dtype) == ((90,), torch.bfloat16)
    assert gradient.shape == (90, 32)


def test_each_number_of_tokens_is_tried_with_at_least_one_target():
    found = noted(lambda: torch.mm(torch.ones(9, 70), torch.ones(70, 32)), 70, 9)
    shapes = []

    def run(left, right):
        shapes.append((tuple(left.shape), tuple(right.shape)))
        return left

    products = (replace(product, run=run) for product in found)
    do_again(products, [30, 200], share=0.01, device=torch.device("cpu"))
    assert shapes == [((1, 30), (30, 32)), ((2, 200), (200, 32))]


def plan_of(steps):
    """Steps of (ranks of (micro-batches of lengths))."""

    def step(number):
        ranks, lengths = [], []
        for rank in steps[number]:
            places = []
            for micro in rank:
                places.append(tuple(range(len(lengths), len(lengths) + len(micro))))
                lengths.extend(micro)
            ranks.append(tuple(places))
        batch = SimpleNamespace(micro_batches=tuple(ranks))
        return SimpleNamespace(lengths=np.array(lengths, dtype=np.int64), batch=batch)

    return SimpleNamespace(num_steps=len(steps), step=step)


MICRO = st.lists(st.integers(1, 5000), max_size=3)
STEPS = st.lists(
    st.lists(st.lists(MICRO, min_size=1, max_size=3), min_size=1, max_size=2),
    min_size=1,
    max_size=4,
).filter(lambda steps: any(m for s in steps for r in s for m in r))


@given(steps=STEPS)
def test_few_sizes_are_all_taken_and_empty_micro_batches_are_none(steps):
    sizes = {sum(m) for s in steps for r in s for m in r if m}
    assert token_counts(plan_of(steps)) == sorted(sizes)


def test_of_many_sizes_some_are_taken_the_ends_among_them():
    counts = token_counts(plan_of([[[[n]]] for n in range(100, 1100)]))
    assert len(counts) == _MOST_SIZES
    assert (counts[0], counts[-1]) == (100, 1099)
    assert max(np.diff(counts)) <= 8
