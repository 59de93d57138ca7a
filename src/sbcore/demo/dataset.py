"""Makes the demo's data set, tokenizer and evaluation tasks: the same seed gives the same bytes.

Real text comes from the standard library, so the bytes also depend on the Python version, which
``summary.json`` records with a digest of the text.
"""

import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator

from sbcore.artifacts import replace_when_done, write_json
from sbcore.config.stages import DemoStage
from sbcore.demo.corpus import read_corpus
from sbcore.demo.evaluation import write_tasks
from sbcore.demo.folders import replace_folder_when_done
from sbcore.demo.lengths import draw_samples
from sbcore.demo.script import Script
from sbcore.demo.tasks import TASKS
from sbcore.demo.text import Text
from sbcore.demo.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from rich.progress import Progress

_QUESTION_SHARE = (1 / 16, 1 / 2)  # of a training sample's tokens, each octave as likely
_TOKENS_PER_QUESTION = 3  # question, value, end


def make_demo(config: DemoStage, *, out: Path, progress: "Progress") -> dict[str, Any]:
    """Writes train.jsonl, tokenizer/, tasks/ and summary.json to out; returns the summary."""
    demo = config.demo
    task = progress.add_task("make demo data", total=demo.num_samples)
    corpus = read_corpus(demo.corpus_bytes)
    tokenizer = train_tokenizer(
        chain.from_iterable(corpus.training),
        vocab_size=demo.vocab_size,
        max_tokens=demo.lengths.max_tokens,
    )
    with replace_folder_when_done(out / "tokenizer") as folder:
        tokenizer.save_pretrained(folder)
    kept = Text(corpus.evaluation, tokenizer)
    chance = write_tasks(demo, seed=config.seed, text=kept, out=out / "tasks")
    text = Text(corpus.training, tokenizer)
    lengths, rng = draw_samples(demo, seed=config.seed)
    names = rng.choice(list(TASKS), demo.num_samples)
    with (
        replace_when_done(out / "train.jsonl") as path,
        path.open("w", encoding="utf-8") as file,
    ):
        for name, length in zip(names, lengths.tolist(), strict=True):
            script = _training_script(name, length, text, rng)
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
        "vocab_size": len(tokenizer),
        "corpus_bytes": corpus.num_bytes,
        "corpus_digest": corpus.digest,
        "python_version": corpus.python_version,
    }
    write_json(out / "summary.json", summary)
    return summary


def _training_script(name: str, num_tokens: int, text: Text, rng: Generator) -> Script:
    """Returns a sample of the task; its share of questions varies."""
    share = np.exp(rng.uniform(*np.log(_QUESTION_SHARE)))
    num_questions = max(1, int(num_tokens * share) // _TOKENS_PER_QUESTION)
    return TASKS[name].make(num_tokens, num_questions, text, rng)
