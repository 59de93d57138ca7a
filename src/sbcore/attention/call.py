"""What one forward pass carries down to its attention layers.

T packed tokens, N sequences, H query heads, G key heads, D head dim.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch

from sbkernels import BlockSelection
from sbkernels.moba.key_blocks import KeyBlocks


class BudgetSource(Protocol):
    """Decides the budget of a layer when its queries and keys are known."""

    @property
    def top_k_range(self) -> tuple[int, int] | None:
        """Least and greatest top_k that it may answer, known without the device; None: any."""
        ...

    def top_k(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        call: "AttentionCall",
        *,
        means: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """Returns top_k, int32 [N] on the device, for q [T, H, D] and k [T, G, D]; None: dense.

        ``means`` of the keys of each block [B, G, D] are given where the choice of blocks will use
        them too.
        """
        ...


@dataclass(frozen=True)
class FixedBudgets:
    """The same budgets for every layer; ``value`` is int32 [N] on the device.

    ``top_k_range`` holds the least and greatest of them, where the host knows them.
    """

    value: torch.Tensor
    top_k_range: tuple[int, int] | None = None

    @classmethod
    def of(cls, value: int, num_sequences: int, device: torch.device | str) -> "FixedBudgets":
        """Returns the same budget for every sequence."""
        values = torch.full((num_sequences,), value, dtype=torch.int32, device=device)
        return cls(values, (value, value))

    def top_k(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        call: "AttentionCall",
        *,
        means: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns the value."""
        return self.value


@dataclass
class AttentionCall:
    """The packed batch of one forward pass and where its budgets come from.

    ``lengths`` are the same boundaries on the host, so that nothing waits for the device.
    ``budgets`` None means dense attention; what the host knows of them is asked once for all
    layers. With ``keep_choices`` the selection of each layer is kept until its recomputation has
    used it: activation checkpointing runs the forward twice, and another choice the second time
    would give silently wrong gradients.
    """

    cu_seqlens: torch.Tensor  # int32 [N+1]
    lengths: tuple[int, ...]
    block_size: int
    backend: str
    budgets: BudgetSource | None
    keep_choices: bool = False
    choices: dict[int, BlockSelection] = field(default_factory=dict)

    @cached_property
    def max_seqlen(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)

    @cached_property
    def max_num_blocks(self) -> int:
        """Key blocks of the longest sequence."""
        return -(-self.max_seqlen // self.block_size)

    @cached_property
    def all_blocks(self) -> torch.Tensor:
        """Budgets that leave nothing out, int32 [N]."""
        return self.cu_seqlens.new_full((len(self.lengths),), self.max_num_blocks)

    @cached_property
    def key_blocks(self) -> KeyBlocks | None:
        """Averages each layer's keys once for all who ask; None where kernels do it themselves."""
        if self.cu_seqlens.is_cuda or self.backend not in ("auto", "torch"):
            return None
        return KeyBlocks(self.lengths, block_size=self.block_size)

    @cached_property
    def top_k_range(self) -> tuple[int | None, int | None]:
        """Least and greatest top_k as the host knows them, None where it does not."""
        known = None if self.budgets is None else self.budgets.top_k_range
        return (None, None) if known is None else known

    @cached_property
    def covers_all(self) -> bool:
        """Whether every query surely attends to all earlier tokens: attention is dense."""
        least, _ = self.top_k_range
        return least is not None and least * self.block_size >= self.max_seqlen
