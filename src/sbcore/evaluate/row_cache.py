"""KV cache of prompts of unequal length and the attention that writes and reads it.

B rows, T packed tokens, S positions of a row, H query heads, G key heads, D head dim. Prompts are
read packed, each from position 0, so that key blocks count as in training; every row's keys then
begin at position 0 and new ones follow its own last one. Padding is at the end of a row, where the
mask hides it: no row sees another's length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from sbcore.attention import ATTENTION_NAME, AttentionCall
from sbcore.evaluate.block_mask import visible_positions

GENERATION_NAME = "sparsebalance_generation"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a query may see."""

    block_size: int
    top_k: int


@dataclass
class RowCache:
    """Keys and values of every layer, [B, G, S, D], and where the next token of each row goes.

    ``used`` positions of a row, at most, hold anything; all else of its state is on the device.
    """

    positions: torch.Tensor  # int64 [B]
    num_positions: int
    used: int
    rows: torch.Tensor  # int64 [B]: 0, 1, 2, ...
    sparse: Budget | None  # of new tokens; None: they see everything
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)
    mask: torch.Tensor = field(init=False)

    @classmethod
    def empty(
        cls,
        lengths: Sequence[int],
        *,
        max_new_tokens: int,
        device: torch.device,
        sparse: Budget | None,
    ) -> "RowCache":
        """Returns the cache of prompts of these lengths, with room for their answers."""
        longest = max(lengths)
        return cls(
            positions=torch.tensor(lengths).to(device),
            num_positions=longest + max_new_tokens,
            used=longest,
            rows=torch.arange(len(lengths), device=device),
            sparse=sparse,
        )

    def fill(self, layer: int, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> None:
        """Stores the packed keys and values [1, G, T, D] of all prompts."""
        for store, packed in ((self.keys, key), (self.values, value)):
            parts = packed[0].split(call.lengths, dim=1)
            rows = packed.new_zeros(
                len(parts), packed.shape[1], self.num_positions, packed.shape[3]
            )
            for row, part in zip(rows, parts, strict=True):
                row[:, : part.shape[1]] = part
            store[layer] = rows

    def begin_token(self) -> None:
        """Makes room for one more token in each row and says what its query may see."""
        self.used += 1
        seen = torch.arange(self.used, device=self.positions.device) <= self.positions[:, None]
        self.mask = seen[:, None, None]  # bool [B, 1, 1, used]

    def end_token(self) -> None:
        """Moves every row on."""
        self.positions += 1

    def add(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Stores the keys and values [B, G, 1, D] of the rows' newest tokens."""
        self.keys[layer][self.rows, :, self.positions] = key[:, :, 0]
        self.values[layer][self.rows, :, self.positions] = value[:, :, 0]

    def attend(self, layer: int, query: torch.Tensor, scale: float | None) -> torch.Tensor:
        """Returns the attention [B, 1, H, D] of one query per row, [B, H, 1, D], over the cache.

        The heads of a group stand in for query positions, so that keys are not repeated.
        """
        keys, values = self.keys[layer][:, :, : self.used], self.values[layer][:, :, : self.used]
        grouped = query[:, :, 0].unflatten(1, (keys.shape[1], -1))  # [B, G, H/G, D]
        mask = self.mask
        if self.sparse is not None:
            mask = mask & visible_positions(
                grouped,
                keys,
                self.positions,
                block_size=self.sparse.block_size,
                top_k=self.sparse.top_k,
            )
        out = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale)
        return out.flatten(1, 2).unsqueeze(1)


def register_generation() -> None:
    """Makes the attention known that reads packed prompts and then decodes; once a process."""
    AttentionInterface.register(GENERATION_NAME, _attend)


def _attend(
    module: Any,
    query: torch.Tensor,  # [B, H, T, D]
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sb_call: AttentionCall | None = None,
    sb_rows: RowCache | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Returns the output for the library: of packed prompts with a call, else of new tokens."""
    assert sb_rows is not None, "generation always comes with its cache"
    layer = module.layer_idx
    if sb_call is None:
        sb_rows.add(layer, key, value)
        return sb_rows.attend(layer, query, scaling), None
    sb_rows.fill(layer, key, value, sb_call)
    read = AttentionInterface()[ATTENTION_NAME]
    out, _weights = read(module, query, key, value, None, scaling=scaling, sb_call=sb_call)
    return out, None
