"""One step of the base model: passes over parts of a batch, then the optimizers.

A answer positions.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from sbcore.demo.base_batches import BaseBatch
from sbcore.demo.tasks import TASKS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MUON_RATE, _ADAM_RATE = 7e-3, 4e-3
_MAX_GRAD_NORM = 10.0
_TOKENS_PER_PASS = 4096  # nothing is recomputed: of a 3B shape some 20 GB, estimated


@dataclass(frozen=True, slots=True)
class BaseStep:
    """Loss, and answered tokens without end tokens: right ones and all, by task, [2, tasks]."""

    loss: float
    counts: torch.Tensor


def make_optimizers(model: "PreTrainedModel") -> list[torch.optim.Optimizer]:
    """Returns Muon for the layers' matrices and AdamW for the rest."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    known = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in known]
    return [
        torch.optim.Muon(matrices, lr=_MUON_RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=_ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train_step(
    model: "PreTrainedModel", batch: BaseBatch, optimizers: list[torch.optim.Optimizer]
) -> BaseStep:
    """Updates the model by the mean loss of the batch's answers."""
    loss, counts = 0.0, torch.zeros(2, len(TASKS), dtype=torch.long)
    for part in batch.parts(_TOKENS_PER_PASS, model.device):
        share = len(part.before) / len(batch.before)
        done = _pass(model, part, share)
        loss, counts = loss + share * done.loss, counts + done.counts
    nn.utils.clip_grad_norm_(model.parameters(), _MAX_GRAD_NORM)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return BaseStep(loss, counts)


def _pass(model: "PreTrainedModel", part: BaseBatch, share: float) -> BaseStep:
    """Adds the gradients of the part's mean loss, times its share."""
    with torch.autocast("cuda", torch.bfloat16, enabled=model.device.type == "cuda"):
        hidden = model.model(input_ids=part.tokens).last_hidden_state.flatten(0, 1)
        logits = model.lm_head(hidden[part.before])  # [A, vocabulary]: answers only
    loss = nn.functional.cross_entropy(logits.float(), part.labels)
    (share * loss).backward()
    right = (logits.argmax(-1) == part.labels)[~part.is_end]
    task = part.task[~part.is_end]
    counts = [torch.bincount(kind, minlength=len(TASKS)) for kind in (task[right], task)]
    return BaseStep(loss.item(), torch.stack(counts).cpu())
