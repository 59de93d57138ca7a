from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sbcore.plan.read import StepPlan
from sbcore.train.flops import (
    FlopCounter,
    ModelFacts,
    count,
    model_facts,
    peak_flops,
)
from sbcore.types import BatchPlan

FACTS = ModelFacts(
    layer_weights=100,
    trained_weights=100,
    weights_again=70,
    head_weights=10,
    num_layers=2,
    num_heads=3,
    head_dim=4,
)
NO_HEADS = replace(FACTS, num_heads=0)


def work(lengths, top_k, *, recomputed, attention_again=True, facts=FACTS):
    lengths = np.array(lengths)
    return count(
        facts,
        lengths,
        np.full((2, len(lengths)), top_k),
        block_size=4,
        num_target_tokens=5,
        recomputed=np.full(len(lengths), float(recomputed)),
        attention_again=attention_again,
    )


def test_with_all_blocks_useful_is_dense():
    found = work([16, 7], 8, recomputed=False)
    assert found.useful == found.dense_equivalent == found.executed
    pairs = 16 * 17 / 2 + 7 * 8 / 2
    assert found.useful == 6 * 100 * 23 + 6 * 10 * 5 + 2 * 12 * 3 * 4 * pairs


def test_smaller_budgets_are_less_work_of_the_same_tokens():
    few, many = work([16], 1, recomputed=False), work([16], 4, recomputed=False)
    assert few.useful < many.useful
    assert few.dense_equivalent == many.dense_equivalent


def test_recomputation_is_executed_but_not_useful():
    once, twice = (work([16], 2, recomputed=again) for again in (False, True))
    assert twice.useful == once.useful
    without = work([16], 2, recomputed=True, attention_again=False)
    assert without.executed == pytest.approx(once.executed + 2 * 70 * 16)
    of_attention = once.useful - work([16], 2, recomputed=False, facts=NO_HEADS).useful
    assert twice.executed - without.executed == pytest.approx(of_attention / 3), "forward alone"


def test_a_frozen_weight_saves_the_product_that_makes_its_gradient():
    trained, frozen = (
        work([16], 2, recomputed=False, facts=replace(FACTS, trained_weights=n)).useful
        for n in (100, 30)
    )
    assert trained - frozen == 2 * 70 * 16


def recompute_of(mode):
    return SimpleNamespace(mode=mode, applies=lambda tokens: mode != "none" and tokens > 15)


@pytest.mark.parametrize(("mode", "attention_again"), [("full", 1), ("selective", 0), ("none", 0)])
def test_micro_batches_are_run_again_whole_by_their_packed_tokens(mode, attention_again):
    """Two of 10 tokens share a micro-batch, so both are; one of 12 is alone."""
    batch = BatchPlan((((0, 2),), ((1,),)))
    plan = StepPlan(np.arange(3), np.array([10, 12, 10]), batch)
    counter = FlopCounter(FACTS, recompute_of(mode), block_size=4)
    found = counter.count(plan, np.full((2, 3), 9), num_target_tokens=5)
    assert found.keys() == {"useful_tflop", "dense_equivalent_tflop", "executed_tflop"}
    useful = 600 * 32 + 60 * 5 + 2 * 12 * 3 * 4 * (55 + 55 + 78)
    again = 2 * 70 * 20 + attention_again * 2 * 4 * 3 * 4 * (55 + 55)
    assert found["useful_tflop"] == found["dense_equivalent_tflop"] == pytest.approx(useful / 1e12)
    executed = useful + (again if mode != "none" else 0)
    assert found["executed_tflop"] == pytest.approx(executed / 1e12, rel=1e-12)


def test_a_models_facts_are_those_of_its_layers_products():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "vocab_size": 97, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    with torch.device("meta"):
        model = Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, attention_bias=True))
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    model.model.embed_tokens.requires_grad_(False)
    attention, product = 32 * (64 + 2 * 32) + 64 * 32, 32 * 48
    assert model_facts(model) == ModelFacts(
        layer_weights=2 * (attention + 3 * product),
        trained_weights=2 * (attention + 3 * product) - product,
        weights_again=2 * (attention + 2 * product),
        head_weights=97 * 32,
        num_layers=2,
        num_heads=4,
        head_dim=16,
    )


def test_a_peak_is_known_by_the_devices_name():
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("CPU AMD EPYC (2 cores)") is None
