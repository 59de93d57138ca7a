"""Generation on a GPU: the same answers in any company, and no waiting for the device per token."""

from dataclasses import replace

import pytest
import torch

from sbcore.evaluate.loading import load_generator
from sbcore.evaluate.longbench import STANDARD
from sbcore.evaluate.prompts import Prompt

pytestmark = pytest.mark.gpu

TASK = replace(STANDARD[0], max_new_tokens=12)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """Random weights with heads that the kernels take."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=258,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("model")
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def generator(model_dir, tokenizer, make_config):
    config = make_config(kind="sparse")
    attention = config.attention.model_copy(
        update={"block_size": 64, "top_k": 2, "backend": "auto"}
    )
    found = load_generator(
        config.model_copy(update={"attention": attention, "device": "cuda"}),
        model_dir=model_dir,
        tokenizer=tokenizer,
        device=torch.device("cuda"),
    )
    found.packed.model.generation_config.eos_token_id = None
    return found


@pytest.fixture
def prompts():
    rng = torch.Generator().manual_seed(5)
    lengths = (1, 64, 65, 700, 700, 1500)
    draw = [torch.randint(2, 258, (length,), generator=rng).tolist() for length in lengths]
    return [Prompt(ids, False) for ids in draw]


def test_weights_are_bfloat16(generator):
    assert generator.packed.model.dtype is torch.bfloat16


def test_equal_batches_give_equal_answers(generator, prompts):
    assert generator.answer(prompts, TASK) == generator.answer(prompts, TASK)


def test_decoding_waits_for_nothing(generator, prompts):
    with torch.inference_mode():
        ids = [prompt.ids for prompt in prompts]
        rows = generator.packed.empty_rows(ids, max_new_tokens=4)
        tokens = generator.packed.read(ids, rows).argmax(-1)
        tokens = generator.packed.step(tokens, rows).argmax(-1)  # whatever is made at first use
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            generator.packed.step(tokens, rows).argmax(-1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
