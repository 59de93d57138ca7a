"""The backends of attention, by name: a new one is a module and a row of the table.

A backend is a module with the three functions of `Backend`, imported when first used. "auto"
takes triton on CUDA devices and torch elsewhere; there is no fallback.
"""

from importlib import import_module
from typing import Protocol, cast

import torch

from sbkernels.moba.budget import TopKRange
from sbkernels.moba.selection import BlockSelection

BACKENDS = {
    "triton": "sbkernels.moba.triton.op",
    "torch": "sbkernels.moba.torch_backend",
    "reference": "sbkernels.moba.reference",
}


class Unsupported(ValueError):
    """Raised for sizes, types or devices that one backend does not take and another one does."""


class Backend(Protocol):
    """What a backend module offers; its arguments are checked, `top_k` is int32 [N]."""

    def select(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        cu_seqlens: torch.Tensor,
        top_k: torch.Tensor,
        *,
        block_size: int,
        max_seqlen: int,
        top_k_range: TopKRange,
        means: torch.Tensor | None = None,
    ) -> BlockSelection:
        """Returns the blocks chosen for each row and query head.

        means, of the keys of each block, may be used where they are at hand.
        """

    def cover(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        cu_seqlens: torch.Tensor,
        *,
        block_size: int,
        max_seqlen: int,
        ladder: tuple[int, ...],
        row_stride: int,
    ) -> torch.Tensor:
        """Returns the coverage, float32 [N, len(ladder)]."""

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cu_seqlens: torch.Tensor,
        top_k: torch.Tensor,
        *,
        block_size: int,
        max_seqlen: int,
        top_k_range: TopKRange,
        scale: float,
        selection: BlockSelection | None,
        deterministic: bool,
    ) -> torch.Tensor:
        """Returns the attention output [T, H, D], differentiable in q, k and v."""


def load_backend(name: str, device: torch.device) -> Backend:
    """Returns the backend module of that name; "auto" is triton on CUDA, torch elsewhere.

    Raises ValueError for an unknown name.
    """
    if name == "auto":
        name = "triton" if device.type == "cuda" else "torch"
    if name not in BACKENDS:
        choices = ", ".join(["auto", *BACKENDS])
        raise ValueError(f"sbkernels: backend: got {name!r}, wanted one of {choices}.")
    return cast(Backend, import_module(BACKENDS[name]))
