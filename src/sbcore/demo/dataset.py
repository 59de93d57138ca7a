"""Makes the demo's data set, tokenizer and evaluation tasks: the same seed gives the same bytes.

Real text comes from the standard library, so the bytes also depend on the Python version, which
``summary.json`` records with a digest of the text.
"""

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator

from sbcore.artifacts import replace_when_done, write_json
from sbcore.config.data import DemoConfig
from sbcore.config.stages import DemoStage
from sbcore.demo.corpus import Corpus, read_corpus
from sbcore.demo.evaluation import write_tasks
from sbcore.demo.folders import replace_folder_when_done
from sbcore.demo.lengths import draw_lengths
from sbcore.demo.script import Script
from sbcore.demo.tasks import TASKS
from sbcore.demo.text import Text
from sbcore.demo.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from rich.progress import Progress

_QUESTION_SHARE = (1 / 16, 1 / 2)  # of a training sample's tokens, each octave as likely
_TOKENS_PER_QUESTION = 3  # question, value, end
_EVALUATION_EVERY = 8  # of the source files, one is kept for evaluation


@dataclass(frozen=True, slots=True)
class DemoText:
    """The corpus in two parts that share no file, and the tokenizer trained on the first."""

    corpus: Corpus
    tokenizer: Any
    training: Text
    evaluation: Text


def make_demo(config: DemoStage, *, out: Path, progress: "Progress") -> dict[str, Any]:
    """Writes train.jsonl, tokenizer/, tasks/ and summary.json to out; returns the summary."""
    demo = config.demo
    task = progress.add_task("make demo data", total=demo.num_samples)
    text = make_text(demo)
    with replace_folder_when_done(out / "tokenizer") as folder:
        text.tokenizer.save_pretrained(folder)
    chance = write_tasks(demo, seed=config.seed, text=text.evaluation, out=out / "tasks")
    rng = np.random.default_rng([config.seed, 0])
    lengths = draw_lengths(demo.lengths, demo.num_samples, rng)
    names = rng.choice(list(TASKS), demo.num_samples)
    with (
        replace_when_done(out / "train.jsonl") as path,
        path.open("w", encoding="utf-8") as file,
    ):
        for name, length in zip(names, lengths.tolist(), strict=True):
            script = training_script(name, length, text.training, rng)
            file.write(json.dumps({"messages": script.messages()}) + "\n")
            progress.advance(task)
    summary = {
        "seed": config.seed,
        "num_samples": demo.num_samples,
        "num_tokens": int(lengths.sum()),
        "median_tokens": float(np.median(lengths)),
        "max_tokens": int(lengths.max()),
        "num_samples_by_task": {name: int((names == name).sum()) for name in TASKS},
        "chance": chance,
        "vocab_size": len(text.tokenizer),
        "corpus_bytes": text.corpus.num_bytes,
        "corpus_digest": text.corpus.digest,
        "python_version": text.corpus.python_version,
    }
    write_json(out / "summary.json", summary)
    return summary


def make_text(config: DemoConfig) -> DemoText:
    """Returns the demo's text and tokenizer, equal on each call."""
    corpus = read_corpus(config.corpus_bytes)
    kept = [file for i, file in enumerate(corpus.files) if i % _EVALUATION_EVERY == 0]
    rest = [file for i, file in enumerate(corpus.files) if i % _EVALUATION_EVERY != 0]
    tokenizer = train_tokenizer(
        chain.from_iterable(rest),
        vocab_size=config.vocab_size,
        max_tokens=config.lengths.max_tokens,
    )
    return DemoText(corpus, tokenizer, Text(rest, tokenizer), Text(kept, tokenizer))


def training_script(name: str, num_tokens: int, text: Text, rng: Generator) -> Script:
    """Returns a sample of the task; its share of questions varies."""
    share = np.exp(rng.uniform(*np.log(_QUESTION_SHARE)))
    num_questions = max(1, int(num_tokens * share) // _TOKENS_PER_QUESTION)
    return TASKS[name].make(num_tokens, num_questions, text, rng)
