"""Greedy generation with a KV cache: prompts of equal length go together, nothing is padded.

Padding would shift the key blocks of block-sparse attention, which count from the start of a
sequence. The price: prompts of many different lengths are generated one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sbcore.evaluate.prompts import Prompt
from sbcore.evaluate.tasks import Task

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Generator:
    """A model that answers prompts, and the tokenizer that reads its tokens back."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"

    def answer(self, prompts: Sequence[Prompt], task: Task) -> list[str]:
        """Returns the text generated after each prompt; all prompts have the same length.

        The token of the largest logit is taken until an end token or the task's limit; a
        repetition penalty that the model ships stays in force, as in LongBench's pred.py.
        """
        import torch

        ids = torch.tensor([prompt.ids for prompt in prompts], device=self.model.device)
        settings = self._settings(task)
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
            )
        return [self._text(row, settings.eos_token_id) for row in output[:, ids.shape[1] :]]

    def _settings(self, task: Task) -> "GenerationConfig":
        from transformers import GenerationConfig

        ends = end_tokens(self.model.generation_config.eos_token_id, self.tokenizer)
        if task.stop_at_newline:
            ends += self.tokenizer.encode("\n", add_special_tokens=False)[-1:]
        pad = self.tokenizer.pad_token_id
        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            temperature=1.0,
            top_p=1.0,
            top_k=50,
            use_cache=True,
            max_new_tokens=task.max_new_tokens,
            min_new_tokens=1 if task.stop_at_newline else None,
            eos_token_id=ends or None,
            pad_token_id=pad if pad is not None else (ends or [0])[0],
        )

    def _text(self, new_ids: "torch.Tensor", ends: list[int] | None) -> str:
        ids = new_ids.tolist()
        stops = [position for position, token in enumerate(ids) if token in (ends or ())]
        kept = ids[: stops[0] + 1] if stops else ids
        return str(self.tokenizer.decode(kept, skip_special_tokens=True))


def end_tokens(shipped: int | list[int] | None, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Returns every token that ends an answer: those the model ships and the tokenizer's own.

    Chat models whose generation settings lack the end-of-turn token run on and lose F1.
    """
    listed = shipped if isinstance(shipped, list) else [shipped]
    found = dict.fromkeys([*listed, tokenizer.eos_token_id])
    return [token for token in found if token is not None]


def equal_length_batches(prompts: Sequence[Prompt], *, batch_size: int) -> list[list[int]]:
    """Returns the indices of prompts in batches of one length each, shortest first.

    The batches depend on the prompts alone, so a resumed run computes the same numbers.
    """
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt.ids), []).append(index)
    return [
        group[start : start + batch_size]
        for _, group in sorted(by_length.items())
        for start in range(0, len(group), batch_size)
    ]
