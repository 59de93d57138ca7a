"""The base model around its steps: rates, seeds, its shape, what the summary tells."""

import json
from itertools import chain

import numpy as np
import pytest
import torch
from rich.progress import Progress

from sbcore.config.data import DemoConfig, LengthDistribution
from sbcore.config.stages import BaseStage
from sbcore.config.training import ModelShape
from sbcore.demo import base_model, base_step
from sbcore.demo.base_model import _rate
from sbcore.demo.base_step import BaseStep
from sbcore.demo.corpus import read_corpus
from sbcore.demo.tasks import TASKS
from sbcore.errors import SparseBalanceError

SMALL = DemoConfig(
    corpus_bytes=150_000,
    base_steps=30,
    base_tokens_per_step=256,
    lengths=LengthDistribution(median_tokens=120, max_tokens=700),
)
CONFIG = BaseStage(seed=0, demo=SMALL, shape=ModelShape(), device="cpu")


@pytest.mark.parametrize("num_steps", [1, 12, 320, 5000])
def test_the_rate_rises_stays_and_falls_to_a_little(num_steps):
    rates = [_rate(step, num_steps) for step in range(num_steps)]
    assert rates[0] == pytest.approx(1 / 20)
    assert all(0 < rate <= 1 for rate in rates)
    for step, rate in enumerate(rates):
        if step < 19:
            assert rate <= (step + 1) / 20 + 1e-12
        elif step <= 0.85 * num_steps:
            assert rate == 1
        else:  # what is left of the last 15 %, but never nothing
            assert rate == pytest.approx(max(0.02, (num_steps - step) / (0.15 * num_steps)))


def test_a_short_training_ends_in_its_rise():
    assert [_rate(step, 12) for step in range(10)] == pytest.approx(
        [(step + 1) / 20 for step in range(10)]
    )


def test_both_optimizers_go_through_the_rates_in_batches_of_the_asked_size(demo_text, monkeypatch):
    rates, sizes = [], []

    def no_step(_, batch, optimizers):
        sizes.append(batch.tokens.numel())
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
        for optimizer in optimizers:
            optimizer.step()
        return BaseStep(0.0, torch.zeros(2, len(TASKS), dtype=torch.long))

    monkeypatch.setattr(base_model, "train_step", no_step)
    model = base_model._make_model(CONFIG, demo_text.tokenizer, torch.device("cpu"))
    with Progress(disable=True) as progress:
        steps = base_model._train(model, demo_text.training, CONFIG, progress)
        (task,) = progress.tasks
    full, num_steps = (base_step._MUON_RATE, base_step._ADAM_RATE), SMALL.base_steps
    assert len(steps) == num_steps == task.total == task.completed
    expected = [[_rate(step, num_steps) * rate for rate in full] for step in range(num_steps)]
    np.testing.assert_allclose(rates, expected)
    assert 200 < max(sizes) <= SMALL.base_tokens_per_step == 256


def test_the_model_is_made_on_its_device_and_knows_its_tokens_and_lengths(demo_text):
    tokenizer = demo_text.tokenizer
    model = base_model._make_model(CONFIG, tokenizer, torch.device("meta"))
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert model.config.vocab_size == -(-len(tokenizer) // 64) * 64
    assert model.config.max_position_embeddings == SMALL.lengths.max_tokens
    ends = (model.config.eos_token_id, model.config.pad_token_id)
    assert ends == (tokenizer.eos_token_id, tokenizer.pad_token_id)


def test_a_vocabulary_that_fits_is_not_made_larger():
    class Words:
        eos_token_id, pad_token_id = 1, 0

        def __len__(self):
            return 640

    model = base_model._make_model(CONFIG, Words(), torch.device("meta"))
    assert model.config.vocab_size == 640


@pytest.mark.parametrize("num_more", [0, 9])
def test_a_vocabulary_of_the_shape_is_taken_if_it_holds_the_tokenizers(demo_text, num_more):
    num_entries = len(demo_text.tokenizer)
    shape = CONFIG.shape.model_copy(update={"vocab_size": num_entries + num_more})
    config = CONFIG.model_copy(update={"shape": shape})
    model = base_model._make_model(config, demo_text.tokenizer, torch.device("meta"))
    assert model.config.vocab_size == num_entries + num_more
    small = CONFIG.shape.model_copy(update={"vocab_size": num_entries - 1})
    config = CONFIG.model_copy(update={"shape": small})
    with pytest.raises(SparseBalanceError, match=f"the tokenizer has {num_entries} entries"):
        base_model._make_model(config, demo_text.tokenizer, torch.device("meta"))


@pytest.fixture
def train_with(demo, monkeypatch):
    """Writes a base model whose training is replaced by the given steps; returns the text too."""

    def train_with_(steps, out, seed=0):
        texts = []
        monkeypatch.setattr(base_model, "_train", lambda _, text, *__: texts.append(text) or steps)
        config, device = CONFIG.model_copy(update={"seed": seed}), torch.device("cpu")
        with Progress(disable=True) as progress:
            summary = base_model.train_base(
                config, demo=demo, out=out, device=device, progress=progress
            )
        return summary, texts[0]

    return train_with_


def steps_of(*rights):
    """Steps with so many right answers of ten in the first task, none of ten in the second."""
    counts = torch.zeros(len(rights), 2, len(TASKS), dtype=torch.long)
    counts[:, 1, :2], counts[:, 0, 0] = 10, torch.tensor(rights)
    return [BaseStep(1.23456789, each) for each in counts]


def test_the_summary_has_all_losses_and_what_is_right_in_the_last_twenty_steps(
    train_with, tmp_path
):
    summary, _ = train_with(steps_of(*[3] * 10, 0, *[9] * 9, *[10] * 10), tmp_path / "base")
    first, second = list(TASKS)[:2]  # the others were not drawn
    assert summary["accuracy"] == {first: 90.5, second: 0.0}
    assert summary["loss"] == [1.23457] * 30
    assert summary["num_steps"] == 30
    assert json.loads((tmp_path / "base" / "summary.json").read_text()) == summary


def test_evaluation_text_is_not_trained_on(train_with, tmp_path):
    _, text = train_with(steps_of(10), tmp_path / "base")
    files = read_corpus(SMALL.corpus_bytes).training
    assert [line.text for line in text._lines] == list(chain.from_iterable(files))


def test_each_seed_begins_with_its_own_weights(train_with, tmp_path):
    for seed in (0, 1):
        train_with(steps_of(10), tmp_path / str(seed), seed)
    first, second = ((tmp_path / seed / "model.safetensors").read_bytes() for seed in "01")
    assert first != second


def test_one_thread_computes(train_with, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train_with(steps_of(10), tmp_path / "base")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def test_no_two_parts_of_the_demo_draw_the_same_numbers(demo_text, make, tmp_path, monkeypatch):
    seeds, real = [], np.random.default_rng

    def recorded(seed):
        seeds.append(tuple(seed))
        return real(seed)

    monkeypatch.setattr(np.random, "default_rng", recorded)
    make(tmp_path / "demo", seed=3)
    config = CONFIG.model_copy(update={"seed": 3})
    model = base_model._make_model(config, demo_text.tokenizer, torch.device("cpu"))
    with Progress(disable=True) as progress:
        base_model._train(model, demo_text.training, config, progress)
    assert len(set(seeds)) == len(seeds) == len(TASKS) + 2
    assert {seed for seed, _ in seeds} == {3}
