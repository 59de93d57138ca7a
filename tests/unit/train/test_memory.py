import numpy as np
import pytest
import torch

from sbcore.config.load import parse_config
from sbcore.config.stages import train_stage
from sbcore.plan.read import StepPlan
from sbcore.train.memory import (
    MicroBatchFacts,
    MicroBatchTooLarge,
    ModelTooLarge,
    explaining_model_memory,
    explaining_out_of_memory,
    largest_micro_batch,
)
from sbcore.types import BatchPlan

ERROR = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 12.50 GiB. GPU 0 has a total capacity of 79.11 GiB of "
    "which 3.20 GiB is free. Process 1 has 75.9 GiB memory in use. Of the allocated memory 70 GiB "
    "is allocated by PyTorch, and 1 GiB is reserved. See documentation for Memory Management"
)


class Plan:
    num_steps = 2

    def step(self, number):
        lengths = np.array([[5, 6, 20], [9, 12, 10]][number])
        return StepPlan(np.arange(3), lengths, BatchPlan((((0, 1), ()), ((2,), ()))))


def stage(**sections):
    return train_stage(parse_config({"topology": {"max_tokens": 4096}} | sections, []), "baseline")


def explain(lengths, settings, estimate=None):
    facts = MicroBatchFacts(step=0, rank=1, micro_batch=2, lengths=lengths)
    with (
        pytest.raises(MicroBatchTooLarge) as caught,
        explaining_out_of_memory(facts, estimate_gib=estimate, stage=settings),
    ):
        raise ERROR
    return str(caught.value)


def test_the_largest_micro_batch_has_most_packed_tokens():
    assert largest_micro_batch(Plan(), float) == (1, 0, 0)


def test_the_largest_need_counts_not_the_largest_size():
    """Above some size layers are recomputed, and more tokens need less."""
    assert largest_micro_batch(Plan(), lambda tokens: tokens if tokens < 15 else 1) == (0, 0, 0)


def test_of_equals_the_first_is_taken_even_if_none_needs_anything():
    assert largest_micro_batch(Plan(), lambda tokens: 7.0) == (0, 0, 0)
    last = {10: 7.0}  # the last one that holds sequences
    assert largest_micro_batch(Plan(), lambda tokens: last.get(tokens, 0.0)) == (1, 1, 0)


def test_a_limit_that_the_micro_batch_meets_is_advised_to_be_lowered():
    """Layers are recomputed above it, not at it."""
    limit = {"activation_checkpointing": "full", "recompute_above_tokens": 4000}
    words = "lower train.recompute_above_tokens = 4000"
    assert words in explain([4000], stage(train=limit))
    assert words not in explain([4001], stage(train=limit))


def test_the_error_names_micro_batch_tokens_estimate_and_settings():
    assert explain([3000, 1000], stage(), estimate=61.25) == (
        "step 0, rank 1, micro_batch 2: 4000 tokens in 2 sequences: out of memory (estimate "
        "61.2 GiB; CUDA out of memory. Tried to allocate 12.50 GiB. GPU 0 has a total capacity of "
        "79.11 GiB of which 3.20 GiB is free). set train.activation_checkpointing to full or "
        "lower topology.max_tokens = 4096 or train adapters (model.lora) or use more ranks."
    )


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"activation_checkpointing": "full"}, "no estimate"),
        (
            {"activation_checkpointing": "full", "recompute_above_tokens": 5000},
            "lower train.recompute_above_tokens = 5000",
        ),
    ],
)
def test_what_is_on_already_is_not_advised(train, words):
    line = explain([4000], stage(train=train))
    assert words in line
    assert "set train.activation_checkpointing" not in line


def test_one_sequence_is_not_helped_by_a_lower_cap():
    line = explain([9000], stage())
    assert "9000 tokens in 1 sequence:" in line
    assert "leave out samples of 9000 tokens" in line
    assert "topology.max_tokens" not in line


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            {},
            "a weight, its gradient and its moments take 16 bytes, spread over the ranks. "
            "use more ranks or train adapters (model.lora).",
        ),
        (
            {"dtype": "bfloat16", "lora": {}},
            "a frozen weight takes 2 bytes, spread over the ranks. use more ranks.",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_one_line(model, words):
    with (
        pytest.raises(ModelTooLarge) as caught,
        explaining_model_memory(stage(model=model), rank=1),
    ):
        raise ERROR
    assert str(caught.value) == (
        "topology.num_ranks = 2: rank 1 cannot hold its part of the model: CUDA out of memory. "
        "Tried to allocate 12.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 3.20 GiB is "
        f"free. {words}"
    )
