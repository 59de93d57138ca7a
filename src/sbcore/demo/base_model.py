"""Trains the demo's base model: short samples until the tasks are solved, in half a minute.

Every variant then continues it on long samples. The optimizer is Muon for the layers' matrices
and AdamW for the rest: AdamW alone needs about twice the steps (docs/log.md).
"""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sbcore.artifacts import write_json
from sbcore.config.stages import DemoStage
from sbcore.data.tokenizers import load_tokenizer
from sbcore.demo.base_batches import BaseBatch, draw_batches
from sbcore.demo.corpus import read_corpus
from sbcore.demo.folders import replace_folder_when_done
from sbcore.demo.tasks import TASKS
from sbcore.demo.text import Text
from sbcore.model.build import shape_config

if TYPE_CHECKING:
    from rich.progress import Progress
    from transformers import PreTrainedModel

_MUON_RATE, _ADAM_RATE = 7e-3, 4e-3
_WARMUP_STEPS, _DECAY_SHARE, _LAST_RATE = 20, 0.15, 0.02
_MAX_GRAD_NORM = 10.0
_THREADS = 1  # two wait for each other as soon as anything else runs: 20 times slower
_VOCABULARY_MULTIPLE = 64
_AVERAGED_STEPS = 20  # of the accuracy in the summary


@dataclass(frozen=True, slots=True)
class _Step:
    """Loss, and answered tokens without end tokens: right ones and all, by task, [2, tasks]."""

    loss: float
    counts: torch.Tensor


def train_base(config: DemoStage, *, demo: Path, out: Path, progress: "Progress") -> dict[str, Any]:
    """Writes a Hugging Face directory with weights, tokenizer and summary.json; returns that.

    ``demo`` is the folder of `make_demo`, whose tokenizer the model gets.
    """
    torch.set_num_threads(_THREADS)
    torch.manual_seed(config.seed)
    tokenizer = load_tokenizer(demo / "tokenizer")
    model = _make_model(config, tokenizer)
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


def _accuracy(steps: list[_Step]) -> dict[str, float]:
    """Returns the share of answered tokens that are right, percent, by task that was drawn."""
    right, total = torch.stack([step.counts for step in steps]).sum(0).tolist()
    counts = zip(TASKS, right, total, strict=True)
    return {name: round(100 * good / number, 2) for name, good, number in counts if number}


def _make_model(config: DemoStage, tokenizer: Any) -> "PreTrainedModel":
    from transformers import Qwen2ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of saving one small file
    rows = -(-len(tokenizer) // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE
    shape = shape_config(config.shape, vocab_size=rows, max_tokens=config.demo.lengths.max_tokens)
    shape.eos_token_id, shape.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    shape._attn_implementation = "sdpa"
    return Qwen2ForCausalLM(shape)


def _train(
    model: "PreTrainedModel", text: Text, config: DemoStage, progress: "Progress"
) -> list[_Step]:
    rng = np.random.default_rng([config.seed, len(TASKS) + 1])
    batches = draw_batches(text, config.demo.base_tokens_per_step, rng)
    optimizers = _make_optimizers(model)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: _rate(step, config.demo.base_steps))
        for o in optimizers
    ]
    bar = progress.add_task("train base model", total=config.demo.base_steps)
    steps = []
    for _ in range(config.demo.base_steps):
        steps.append(_step(model, next(batches), optimizers))
        for schedule in schedules:
            schedule.step()
        progress.advance(bar)
    return steps


def _step(
    model: "PreTrainedModel", batch: BaseBatch, optimizers: list[torch.optim.Optimizer]
) -> _Step:
    hidden = model.model(input_ids=batch.tokens).last_hidden_state.flatten(0, 1)
    logits = model.lm_head(hidden[batch.before])  # [A, vocabulary]: answers only
    loss = nn.functional.cross_entropy(logits, batch.labels)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), _MAX_GRAD_NORM)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    right = (logits.argmax(-1) == batch.labels)[~batch.is_end]
    task = batch.task[~batch.is_end]
    counts = [torch.bincount(kind, minlength=len(TASKS)) for kind in (task[right], task)]
    return _Step(loss.item(), torch.stack(counts))


def _make_optimizers(model: "PreTrainedModel") -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    known = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in known]
    return [
        torch.optim.Muon(matrices, lr=_MUON_RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=_ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _rate(step: int, num_steps: int) -> float:
    """Returns the learning rate's factor: a short rise, a plateau, a linear fall at the end."""
    rise = (step + 1) / _WARMUP_STEPS
    fall = (num_steps - step) / (_DECAY_SHARE * num_steps)
    return min(1.0, rise, max(_LAST_RATE, fall))
