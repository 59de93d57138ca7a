"""The base model: its directory loads, its loss falls, the same seed gives the same weights."""

import json

import numpy as np
import pytest
import torch

from sbcore.config.training import ModelShape
from sbcore.demo import base_step
from sbcore.demo.base_batches import draw_batches
from sbcore.demo.tasks import TASKS
from sbcore.demo.words import FURTHER, LABEL_QUESTIONS, VALUES
from sbcore.model.build import read_model_config, shape_config


@pytest.fixture(scope="module")
def base(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("base") / "model")


def test_the_directory_is_a_model_with_its_tokenizer(base):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    assert read_model_config(base).model_type == "qwen2"
    assert model.config.vocab_size % 64 == 0
    assert model.config.vocab_size >= len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert (base / "model.safetensors").is_file()
    assert not list(base.parent.glob(".*part"))


def test_the_loss_falls_and_is_told(base):
    summary = json.loads((base / "summary.json").read_text())
    assert summary["num_steps"] == len(summary["loss"]) == 12
    assert np.mean(summary["loss"][-3:]) < 0.9 * np.mean(summary["loss"][:3])
    assert set(summary["accuracy"]) <= set(TASKS)
    assert all(0 <= share <= 100 for share in summary["accuracy"].values())


def test_the_same_seed_gives_the_same_weights(base, train, tmp_path):
    weights = (base / "model.safetensors").read_bytes()
    assert (train(tmp_path / "again") / "model.safetensors").read_bytes() == weights
    assert (train(tmp_path / "other", seed=1) / "model.safetensors").read_bytes() != weights


@pytest.mark.gpu
def test_a_gpu_learns_as_a_processor_does(base, train, tmp_path):
    on_gpu = train(tmp_path / "model", device="cuda")
    of = [json.loads((folder / "summary.json").read_text())["loss"] for folder in (base, on_gpu)]
    # one starts from other random weights and rounds to bfloat16
    assert np.mean(of[1][-3:]) == pytest.approx(np.mean(of[0][-3:]), rel=0.1)


@pytest.mark.parametrize("num_tokens", [1, 150, 700, 10_000])
def test_parts_of_a_batch_hold_its_samples_in_order(demo_text, num_tokens):
    batch = next(draw_batches(demo_text.training, 1500, np.random.default_rng(0)))
    length = batch.tokens.shape[1]
    parts = list(batch.parts(num_tokens, torch.device("cpu")))
    assert all(part.tokens.numel() <= max(num_tokens, length) for part in parts)
    assert torch.equal(torch.cat([part.tokens for part in parts]), batch.tokens)
    for name in ("labels", "task", "is_end"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(batch, name)), name


def test_passes_over_parts_add_up_to_the_whole_batch(demo_text, monkeypatch):
    from transformers import Qwen2ForCausalLM

    batch = next(draw_batches(demo_text.training, 1500, np.random.default_rng(0)))
    after = []
    for tokens in (10_000, 300):
        monkeypatch.setattr(base_step, "_TOKENS_PER_PASS", tokens)
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(
            shape_config(ModelShape(), vocab_size=len(demo_text.tokenizer), max_tokens=700)
        ).double()
        step = base_step.train_step(model, batch, [torch.optim.SGD(model.parameters(), lr=1.0)])
        after.append((step, torch.cat([p.detach().flatten() for p in model.parameters()])))
    (whole, weights), (added, others) = after
    assert added.loss == pytest.approx(whole.loss, rel=1e-6)
    assert torch.equal(added.counts, whole.counts)
    torch.testing.assert_close(others, weights, rtol=0, atol=1e-6)


def test_batches_point_at_the_answers(demo_text):
    text = demo_text.training
    batches = draw_batches(text, 1500, np.random.default_rng(0))
    answers = {text.words[word].tokens[0] for word in (*VALUES, *FURTHER)}
    labels = {text.words[question].tokens[0] for question in LABEL_QUESTIONS}
    for _ in range(5):
        batch = next(batches)
        assert 0 < batch.tokens.numel() <= 1500
        flat = batch.tokens.flatten()
        assert torch.equal(batch.is_end, flat[batch.before + 1] == text.end_token)
        questions = flat[batch.before][(batch.task == 3) & ~batch.is_end]
        assert set(questions.tolist()) <= labels
        of_words = batch.labels[(batch.task != len(TASKS) - 1) & ~batch.is_end]
        assert set(of_words.tolist()) <= answers
