"""The base model: its directory loads, its loss falls, the same seed gives the same weights."""

import json

import numpy as np
import pytest
import torch

from sbcore.demo.base_batches import draw_batches
from sbcore.demo.tasks import TASKS
from sbcore.demo.words import FURTHER, LABEL_QUESTIONS, VALUES
from sbcore.model.build import read_model_config


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
