"""The part of a sharded tensor that this rank holds; all of it when nothing is sharded."""

import torch
from torch.distributed.tensor import DTensor


def own_part(tensor: torch.Tensor) -> tuple[slice, ...]:
    """Returns which part of the whole tensor is here, a slice for each dimension; may be empty."""
    if isinstance(tensor, DTensor):
        chunk = tensor.__create_chunk_list__()[0]  # as distributed checkpoints ask for it
        ends = zip(chunk.offsets, chunk.sizes, strict=True)
        return tuple(slice(start, start + size) for start, size in ends)
    return tuple(slice(0, size) for size in tensor.shape)


def held_here(tensor: torch.Tensor) -> torch.Tensor:
    """Returns that part itself, detached: what is copied into it is in the tensor."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
