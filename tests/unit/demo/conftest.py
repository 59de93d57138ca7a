"""A small demo: little text, few samples."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from sbcore.config.data import DemoConfig, LengthDistribution
from sbcore.config.stages import BaseStage, DemoStage
from sbcore.config.training import ModelShape
from sbcore.demo.corpus import Corpus, read_corpus
from sbcore.demo.dataset import make_demo
from sbcore.demo.text import Text
from sbcore.demo.tokenizer import train_tokenizer

SMALL = DemoConfig(
    num_samples=40,
    num_eval_samples=6,
    eval_lengths=[64, 256],
    corpus_bytes=150_000,
    vocab_size=400,
    base_steps=12,
    base_tokens_per_step=512,
    lengths=LengthDistribution(median_tokens=120, max_tokens=700),
)


def stage(seed: int) -> DemoStage:
    return DemoStage(seed=seed, demo=SMALL)


@dataclass(frozen=True)
class DemoText:
    corpus: Corpus
    tokenizer: Any
    training: Text
    evaluation: Text


@pytest.fixture(scope="session")
def demo_text() -> DemoText:
    corpus = read_corpus(SMALL.corpus_bytes)
    lines = chain.from_iterable(corpus.training)
    tokenizer = train_tokenizer(lines, vocab_size=SMALL.vocab_size, max_tokens=4096)
    texts = (Text(files, tokenizer) for files in (corpus.training, corpus.evaluation))
    return DemoText(corpus, tokenizer, *texts)


@pytest.fixture(scope="session")
def make() -> Callable[..., Path]:
    """Makes the demo in a folder and returns the folder."""

    def make_(out: Path, seed: int = 0) -> Path:
        with Progress(disable=True) as progress:
            make_demo(stage(seed), out=out, progress=progress)
        return out

    return make_


@pytest.fixture(scope="session")
def demo(make: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def train(demo: Path) -> Callable[..., Path]:
    """Trains a base model of a seed into a folder and returns the folder."""
    import torch

    from sbcore.demo.base_model import train_base

    def train_(out: Path, seed: int = 0, device: str = "cpu") -> Path:
        config = BaseStage(seed=seed, demo=SMALL, shape=ModelShape(), device=device)
        where = torch.device(device)
        with Progress(disable=True) as progress:
            train_base(config, demo=demo, out=out, device=where, progress=progress)
        return out

    return train_
