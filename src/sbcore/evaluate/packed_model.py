"""A model that reads prompts of any length in one pack and then decodes all of them side by side.

B rows (prompts), T packed tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sbcore.attention import AttentionCall, FixedBudgets
from sbcore.config.compute import AttentionConfig
from sbcore.evaluate.row_cache import Budget, RowCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class PackedModel:
    """The model; ``top_k`` is the budget for reading prompts, None for dense attention.

    With ``decodes_sparsely`` it holds for new tokens too, which else see everything.
    """

    model: "PreTrainedModel"
    attention: AttentionConfig
    top_k: int | None
    decodes_sparsely: bool

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    def empty_rows(self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int) -> RowCache:
        """Returns a cache for these prompts and their answers."""
        sparse = None
        if self.top_k is not None and self.decodes_sparsely:
            sparse = Budget(self.attention.block_size, self.top_k)
        lengths = [len(ids) for ids in prompts]
        return RowCache.empty(
            lengths, max_new_tokens=max_new_tokens, device=self.device, sparse=sparse
        )

    def read(self, prompts: Sequence[Sequence[int]], rows: RowCache) -> torch.Tensor:
        """Returns the logits [B, V], float32, after each prompt; fills the cache."""
        lengths = [len(ids) for ids in prompts]
        packed = [token for ids in prompts for token in ids]
        positions = torch.cat([torch.arange(length) for length in lengths])
        logits = self.model(
            input_ids=torch.tensor([packed]).to(self.device),
            position_ids=positions[None].to(self.device),
            attention_mask=self._no_mask(),
            use_cache=False,
            logits_to_keep=(torch.tensor(lengths).cumsum(0) - 1).to(self.device),
            sb_call=self._call(lengths),
            sb_rows=rows,
        ).logits
        return logits[0].float()

    def step(self, tokens: torch.Tensor, rows: RowCache) -> torch.Tensor:
        """Returns the logits [B, V], float32, after one more token [B] in each row."""
        rows.begin_token()
        logits = self.model(
            input_ids=tokens[:, None],
            position_ids=rows.positions[:, None],
            attention_mask=self._no_mask(),
            use_cache=False,
            sb_rows=rows,
        ).logits
        rows.end_token()
        return logits[:, -1].float()

    def _call(self, lengths: Sequence[int]) -> AttentionCall:
        ends = torch.tensor([0, *lengths]).cumsum(0).to(self.device, dtype=torch.int32)
        fixed = None if self.top_k is None else torch.full_like(ends[1:], self.top_k)
        return AttentionCall(
            cu_seqlens=ends,
            lengths=tuple(lengths),
            block_size=self.attention.block_size,
            backend=self.attention.backend,
            budgets=None if fixed is None else FixedBudgets(fixed),
        )

    def _no_mask(self) -> torch.Tensor:
        """Returns a mask that the library hands down as it is; ours come with the cache.

        Without one it looks for packed sequences itself, and that waits for the device.
        """
        return torch.empty(1, 1, 1, 1, device=self.device)
