"""Tensors of one micro-batch, packed: what the plan names, cut out of the token store.

T packed tokens, N sequences, n target tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sbcore.data.read import TokenStore


@dataclass(frozen=True)
class PackedBatch:
    """One micro-batch on the device; ``sequences`` are indices into the step's lengths."""

    input_ids: torch.Tensor  # int64 [1, T]
    position_ids: torch.Tensor  # int64 [1, T], from 0 in each sequence
    cu_seqlens: torch.Tensor  # int32 [N+1]
    predict_at: torch.Tensor  # int64 [n], positions whose next token is a target
    labels: torch.Tensor  # int64 [n], one of them 0 in a dummy
    lengths: tuple[int, ...]
    sequences: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens T."""
        return sum(self.lengths)

    @property
    def is_dummy(self) -> bool:
        """Whether it only keeps this rank in step with the others."""
        return not self.sequences


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Returns the tensor on the device; a GPU copies on, beside the host, from pinned memory."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def pack(
    store: TokenStore, sample_ids: Sequence[int], sequences: tuple[int, ...], device: torch.device
) -> PackedBatch:
    """Returns the samples one after the other; without samples a dummy of one token.

    The first token of a sequence is never a target: nothing before it may predict it.
    """
    samples = [store.sample(i) for i in sample_ids]
    tokens = [np.asarray(t, dtype=np.int64) for t, _ in samples] or [np.zeros(1, dtype=np.int64)]
    lengths = [len(t) for t in tokens]
    starts = np.cumsum([0, *lengths])
    targets = [
        start + np.flatnonzero(is_target[1:]) + 1
        for start, (_, is_target) in zip(starts, samples, strict=False)
    ]
    flat, at = np.concatenate(tokens), np.concatenate([*targets, np.zeros(0, dtype=np.int64)])
    predict_at = at - 1  # a target is never the first token
    position_ids = np.concatenate([np.arange(n) for n in lengths])

    def put(x: np.ndarray) -> torch.Tensor:
        return to_device(torch.from_numpy(x), device)

    return PackedBatch(
        input_ids=put(flat[None]),
        position_ids=put(position_ids[None]),
        cu_seqlens=put(starts.astype(np.int32)),
        predict_at=put(predict_at if samples else np.zeros(1, dtype=np.int64)),
        labels=put(flat[at] if samples else np.zeros(1, dtype=np.int64)),
        lengths=tuple(lengths),
        sequences=sequences,
    )
