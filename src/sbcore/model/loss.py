"""The loss of a packed micro-batch, the vocabulary head fused into it.

T packed tokens, n target tokens, E hidden size, V vocabulary. A head over 64K targets and 152K
words would be 20 GB of bf16 logits; here they never exist as a whole.
"""

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

from sbcore.attention.call import AttentionCall

_CHUNK_LOGITS = 2**27
"""Logits of one chunk: 512 MiB in float32."""


def give_loss(model: nn.Module) -> None:
    """Replaces the causal model's forward by its summed loss, so that hooks of sharding still run.

    The new forward takes ``input_ids`` and ``position_ids`` int64 [1, T], ``predict_at`` and
    ``labels`` int64 [n] and ``sb_call``; it returns the summed cross-entropy, float32.
    """

    def forward(
        self: Any,
        *,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        predict_at: torch.Tensor,
        labels: torch.Tensor,
        sb_call: AttentionCall,
    ) -> torch.Tensor:
        hidden = self.model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False, sb_call=sb_call
        ).last_hidden_state
        # `hidden[0, predict_at]` has a backward pass that sorts the indices.
        chosen = hidden.flatten(0, 1).index_select(0, predict_at)
        return summed_loss(chosen, self.lm_head.weight, labels)

    model.forward = MethodType(forward, model)


def summed_loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the summed cross-entropy; the backward pass makes each chunk's logits again."""
    rows = max(_CHUNK_LOGITS // weight.shape[0], 1)
    if len(labels) <= rows:
        return _sum_of(hidden, weight, labels)
    parts = zip(hidden.split(rows), labels.split(rows), strict=True)
    sums = [checkpoint(_sum_of, h, weight, y, use_reentrant=False) for h, y in parts]
    return torch.stack(sums).sum()


def _sum_of(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(linear(hidden, weight).float(), labels, reduction="sum")
