"""Greedy generation: the largest logit, until every prompt of a batch has ended.

B rows (prompts), V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sbcore.evaluate.packed_model import PackedModel
from sbcore.evaluate.prompts import Prompt
from sbcore.evaluate.tasks import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_STEPS_BETWEEN_LOOKS = 8  # on a GPU: looking whether all rows have ended waits for the device


@dataclass(frozen=True, slots=True)
class Generator:
    """A model that answers prompts, and the tokenizer that reads its tokens back."""

    packed: PackedModel
    tokenizer: "PreTrainedTokenizerBase"

    def answer(self, prompts: Sequence[Prompt], task: Task) -> list[str]:
        """Returns the text generated after each prompt.

        A repetition penalty that the model ships stays in force, as in LongBench's pred.py.
        """
        ends = self._ends(task)
        with torch.inference_mode():
            new_ids = self._generate([prompt.ids for prompt in prompts], task, ends)
        return [self._text(row, ends) for row in new_ids.tolist()]

    def _generate(
        self, prompts: Sequence[Sequence[int]], task: Task, ends: Sequence[int]
    ) -> torch.Tensor:
        """Returns new tokens, int64 [B, at most the task's limit]; behind an end anything."""
        device = self.packed.device
        end_ids = torch.tensor(ends, dtype=torch.int64).to(device)
        every = _STEPS_BETWEEN_LOOKS if device.type == "cuda" else 1
        ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        rows = self.packed.empty_rows(prompts, max_new_tokens=task.max_new_tokens)
        penalty = self._penalty(prompts)
        logits = self.packed.read(prompts, rows)
        if task.stop_at_newline:
            logits[:, end_ids] = -torch.inf  # at least one token is written
        tokens: list[torch.Tensor] = []
        while True:
            tokens.append(penalty.choose(logits) if penalty else logits.argmax(-1))
            ended |= torch.isin(tokens[-1], end_ids)
            looks = len(tokens) % every == 0
            if len(tokens) == task.max_new_tokens or (looks and bool(ended.all())):
                return torch.stack(tokens, dim=1)
            logits = self.packed.step(tokens[-1], rows)

    def _penalty(self, prompts: Sequence[Sequence[int]]) -> "RepetitionPenalty | None":
        model = self.packed.model
        factor = model.generation_config.repetition_penalty
        if factor is None or factor == 1.0:
            return None
        return RepetitionPenalty.of_prompts(
            prompts, factor=factor, vocab_size=model.config.vocab_size, device=self.packed.device
        )

    def _ends(self, task: Task) -> list[int]:
        ends = end_tokens(self.packed.model.generation_config.eos_token_id, self.tokenizer)
        if task.stop_at_newline:
            ends += self.tokenizer.encode("\n", add_special_tokens=False)[-1:]
        return ends

    def _text(self, ids: Sequence[int], ends: Sequence[int]) -> str:
        stops = [position for position, token in enumerate(ids) if token in ends]
        kept = ids[: stops[0] + 1] if stops else ids
        return str(self.tokenizer.decode(kept, skip_special_tokens=True))


@dataclass(frozen=True, slots=True)
class RepetitionPenalty:
    """Makes tokens that a row holds already less likely (arXiv 1909.05858, section 4.1)."""

    factor: float
    seen: torch.Tensor  # bool [B, V]

    @classmethod
    def of_prompts(
        cls,
        prompts: Sequence[Sequence[int]],
        *,
        factor: float,
        vocab_size: int,
        device: torch.device,
    ) -> "RepetitionPenalty":
        """Returns the penalty before anything is generated."""
        seen = torch.zeros(len(prompts), vocab_size, dtype=torch.bool)
        for row, ids in zip(seen, prompts, strict=True):
            row[torch.tensor(ids)] = True
        return cls(factor, seen.to(device))

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the likeliest token of each row [B] of logits [B, V], and marks it as seen."""
        lowered = torch.where(logits > 0, logits / self.factor, logits * self.factor)
        tokens = torch.where(self.seen, lowered, logits).argmax(-1)
        self.seen.scatter_(1, tokens[:, None], True)
        return tokens


def end_tokens(shipped: int | list[int] | None, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Returns every token that ends an answer: those the model ships and the tokenizer's own.

    Chat models whose generation settings lack the end-of-turn token run on and lose F1.
    """
    listed = shipped if isinstance(shipped, list) else [shipped]
    found = dict.fromkeys([*listed, tokenizer.eos_token_id])
    return [token for token in found if token is not None]
