"""Trains the demo's base model: short samples until the tasks are solved.

In half a minute on a processor core at the demo's size; larger shapes want a GPU.

Every variant then continues it on long samples. The optimizer is Muon for the layers' matrices
and AdamW for the rest: AdamW alone needs about twice the steps (docs/log.md).
"""

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sbcore.artifacts import write_json
from sbcore.config.stages import BaseStage
from sbcore.data.tokenizers import load_tokenizer
from sbcore.demo.base_batches import draw_batches
from sbcore.demo.base_step import BaseStep, make_optimizers, train_step
from sbcore.demo.corpus import read_corpus
from sbcore.demo.folders import replace_folder_when_done
from sbcore.demo.tasks import TASKS
from sbcore.demo.text import Text
from sbcore.model.build import shape_config

if TYPE_CHECKING:
    from rich.progress import Progress
    from transformers import PreTrainedModel

_WARMUP_STEPS, _DECAY_SHARE, _LAST_RATE = 20, 0.15, 0.02
_THREADS = 1  # two wait for each other as soon as anything else runs: 20 times slower
_VOCABULARY_MULTIPLE = 64
_AVERAGED_STEPS = 20  # of the accuracy in the summary


def train_base(
    config: BaseStage, *, demo: Path, out: Path, device: torch.device, progress: "Progress"
) -> dict[str, Any]:
    """Writes a Hugging Face directory with weights, tokenizer and summary.json; returns that.

    ``demo`` is the folder of `make_demo`, whose tokenizer the model gets. Weights are float32; on
    a GPU products are taken in bfloat16, and no two runs are equal to the bit.
    """
    torch.set_num_threads(_THREADS)
    torch.manual_seed(config.seed)
    tokenizer = load_tokenizer(demo / "tokenizer")
    model = _make_model(config, tokenizer, device)
    start = perf_counter()
    text = Text(read_corpus(config.demo.corpus_bytes).training, tokenizer)
    steps = _train(model, text, config, progress)
    summary = {
        "num_steps": len(steps),
        "num_parameters": model.num_parameters(),
        "seconds": round(perf_counter() - start, 3),
        "loss": [round(step.loss, 5) for step in steps],
        "accuracy": _accuracy(steps[-_AVERAGED_STEPS:]),
    }
    with replace_folder_when_done(out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json(folder / "summary.json", summary)
    return summary


def _accuracy(steps: list[BaseStep]) -> dict[str, float]:
    """Returns the share of answered tokens that are right, percent, by task that was drawn."""
    right, total = torch.stack([step.counts for step in steps]).sum(0).tolist()
    counts = zip(TASKS, right, total, strict=True)
    return {name: round(100 * good / number, 2) for name, good, number in counts if number}


def _make_model(config: BaseStage, tokenizer: Any, device: torch.device) -> "PreTrainedModel":
    from transformers import Qwen2ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of saving one small file
    num_entries, most = len(tokenizer), config.demo.lengths.max_tokens
    shape = shape_config(config.shape, vocab_size=num_entries, max_tokens=most)
    if config.shape.vocab_size is None:
        shape.vocab_size = -(-num_entries // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE
    shape.eos_token_id, shape.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    shape._attn_implementation = "sdpa"
    with device:
        return Qwen2ForCausalLM(shape)


def _train(
    model: "PreTrainedModel", text: Text, config: BaseStage, progress: "Progress"
) -> list[BaseStep]:
    rng = np.random.default_rng([config.seed, len(TASKS) + 1])
    batches = draw_batches(text, config.demo.base_tokens_per_step, rng)
    optimizers = make_optimizers(model)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: _rate(step, config.demo.base_steps))
        for o in optimizers
    ]
    bar = progress.add_task("train base model", total=config.demo.base_steps)
    steps = []
    for _ in range(config.demo.base_steps):
        steps.append(train_step(model, next(batches), optimizers))
        for schedule in schedules:
            schedule.step()
        progress.advance(bar)
    return steps


def _rate(step: int, num_steps: int) -> float:
    """Returns the learning rate's factor: a short rise, a plateau, a linear fall at the end."""
    rise = (step + 1) / _WARMUP_STEPS
    fall = (num_steps - step) / (_DECAY_SHARE * num_steps)
    return min(1.0, rise, max(_LAST_RATE, fall))
