"""The start of all variants of a seed: the demo's short samples until the tasks are solved, dense.

As `sbcore.demo.base_model`, but on a GPU and with a model 300 times as large: batches are drawn by
worker processes, weights compute in bfloat16 there. A model of 256 x 4 solves the tasks within 140
steps of 4,096 tokens at these rates, measured on a CPU.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from quality_recipe import Recipe
from quality_weights import TwoTypes, working_type
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import Qwen2ForCausalLM

from sbcore.config.training import ModelShape
from sbcore.data.tokenizers import load_tokenizer
from sbcore.demo.base_batches import BaseBatch, draw_batches
from sbcore.demo.corpus import read_corpus
from sbcore.demo.tasks import TASKS
from sbcore.demo.text import Text
from sbcore.model.build import shape_config

_WARMUP_STEPS, _DECAY_SHARE, _LAST_RATE = 40, 0.2, 0.02
_WORKERS, _SHOWN = 5, 50


class Drawn(Dataset[BaseBatch]):
    """The batch of each step, drawn from its own seed: any number of workers gives the same."""

    def __init__(self, recipe: Recipe, folder: Path, *, seed: int) -> None:
        self.recipe, self.seed = recipe, seed
        corpus = read_corpus(recipe.config(seed=seed).demo.corpus_bytes)
        self.text = Text(corpus.training, load_tokenizer(folder / "demo" / "tokenizer"))

    def __len__(self) -> int:
        return self.recipe.base_steps

    def __getitem__(self, step: int) -> BaseBatch:
        rng = np.random.default_rng([self.seed, step, len(TASKS) + 1])
        return next(draw_batches(self.text, self.recipe.base_tokens_per_step, rng))


def make_model(recipe: Recipe, folder: Path, *, seed: int) -> Qwen2ForCausalLM:
    """Returns the model with random weights of the seed, on the CPU."""
    tokenizer = load_tokenizer(folder / "demo" / "tokenizer")
    shape = ModelShape.model_validate(recipe.config(seed=seed).model.shape.model_dump())
    rows = -(-len(tokenizer) // 64) * 64
    architecture = shape_config(shape, vocab_size=rows, max_tokens=recipe.max_tokens)
    architecture.eos_token_id = tokenizer.eos_token_id
    architecture.pad_token_id = tokenizer.pad_token_id
    architecture._attn_implementation = "sdpa"
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(architecture)


def train_base(recipe: Recipe, folder: Path, out: Path, *, seed: int, device: torch.device) -> None:
    """Writes a Hugging Face directory, float32, with the tokenizer."""
    model = make_model(recipe, folder, seed=seed).to(device)
    weights = TwoTypes(model, working_type(device))
    optimizers = _optimizers(recipe, weights)
    workers = _WORKERS if device.type == "cuda" else 0
    batches = DataLoader(Drawn(recipe, folder, seed=seed), batch_size=None, num_workers=workers)
    right = torch.zeros(2, len(TASKS), dtype=torch.float64)
    for step, batch in enumerate(batches):
        loss, counts = _step(model, batch, weights, optimizers, _rate(step, recipe.base_steps))
        right = right * 0.9 + counts
        if (step + 1) % _SHOWN == 0 or step + 1 == recipe.base_steps:
            share = [f"{name} {100 * a / b:.0f}" for name, a, b in zip(TASKS, *right, strict=True)]
            line = f"base {seed}: step {step + 1}  loss {loss:.3f}  right, %: {', '.join(share)}"
            sys.stderr.write(line + "\n")
    _check(recipe, 100 * right[0] / right[1], seed=seed)
    model.float().load_state_dict(weights.state_dict(), strict=False)  # the head is the embedding
    model.save_pretrained(out)
    load_tokenizer(folder / "demo" / "tokenizer").save_pretrained(out)


def _check(recipe: Recipe, right_pct: torch.Tensor, *, seed: int) -> None:
    """Ends the program where the start has not learned what variants are to be compared by."""
    for name, value in zip(TASKS, right_pct.tolist(), strict=True):
        if name in ("recall", "needle") and value < recipe.base_least_right:
            raise SystemExit(
                f"base {seed}: {name} {value:.0f} % right: below {recipe.base_least_right:g}. "
                "raise base_steps or change the base rates in recipe.json"
            )


def _step(
    model: Qwen2ForCausalLM,
    batch: BaseBatch,
    weights: TwoTypes,
    optimizers: list[torch.optim.Optimizer],
    rate: float,
) -> tuple[float, torch.Tensor]:
    """Returns the loss and how many answered tokens were right and all, by task."""
    device = weights.masters[0].device
    labels, before = batch.labels.to(device), batch.before.to(device)
    hidden = model.model(input_ids=batch.tokens.to(device)).last_hidden_state.flatten(0, 1)
    logits = model.lm_head(hidden[before]).float()
    loss = nn.functional.cross_entropy(logits, labels)
    loss.backward()
    weights.take_gradients()
    nn.utils.clip_grad_norm_(weights.masters, 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        optimizer.step()
    weights.give_weights()
    good = (logits.argmax(-1) == labels).cpu() & ~batch.is_end
    counts = [
        torch.bincount(batch.task[kept], minlength=len(TASKS)) for kept in (good, ~batch.is_end)
    ]
    return float(loss.detach()), torch.stack(counts).double()


def _optimizers(recipe: Recipe, weights: TwoTypes) -> list[torch.optim.Optimizer]:
    """Returns Muon for the layers' matrices and AdamW for the rest, as in the demo."""
    pairs = list(zip(weights.names, weights.masters, strict=True))
    matrices = [p for name, p in pairs if ".layers." in name and p.ndim == 2]
    others = [p for name, p in pairs if not (".layers." in name and p.ndim == 2)]
    muon = torch.optim.Muon(
        matrices, lr=recipe.base_muon_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(others, lr=recipe.base_adam_rate, betas=(0.9, 0.95), weight_decay=0.0)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return [muon, adam]


def _rate(step: int, num_steps: int) -> float:
    rise = (step + 1) / _WARMUP_STEPS
    fall = (num_steps - step) / (_DECAY_SHARE * num_steps)
    return min(1.0, rise, max(_LAST_RATE, fall))
