"""The budget as callers give it: values on the device, and a range that the host may know.

`top_k` is device data that the host never waits for. The range is a promise of the caller: it
sizes buffers and lets covered sequences take the library's dense attention. It is kept by force,
so a wrong promise changes the budget and never memory: values outside it are clamped on the
device, and refused where they can be seen (an int, or a tensor on the CPU).
"""

from typing import NamedTuple

import torch

# The largest top_k that an int32 can hold.
UNBOUNDED = 2**31 - 1


class TopKRange(NamedTuple):
    """Least and greatest top_k of all sequences of a call, inclusive; host ints."""

    least: int
    most: int

    def covers(self, num_blocks: int) -> bool:
        """Returns whether every query of sequences of that many blocks attends to all of them."""
        return self.least >= num_blocks


ANY_TOP_K = TopKRange(1, UNBOUNDED)


def normalize_range(
    top_k: int | torch.Tensor, *, min_top_k: int | None, max_top_k: int | None
) -> TopKRange:
    """Returns what the host knows of the budget: at worst that it is a positive int32.

    Raises ValueError for bounds that are no ints, below 1 or crossed, and for an int outside.
    """
    for name, bound in (("min_top_k", min_top_k), ("max_top_k", max_top_k)):
        if bound is not None and (not isinstance(bound, int) or bound < 1):
            raise ValueError(f"sbkernels: {name}: got {bound}, wanted an int, at least 1, or None.")
    least, most = min_top_k or 1, max_top_k or UNBOUNDED
    if least > most:
        raise ValueError(f"sbkernels: min_top_k: got {least}, wanted at most max_top_k, {most}.")
    if isinstance(top_k, int) and top_k >= 1:
        if not least <= top_k <= most:
            raise _outside(top_k, TopKRange(least, most))
        return TopKRange(top_k, top_k)
    return TopKRange(least, most)


def normalize_top_k(
    top_k: int | torch.Tensor, cu_seqlens: torch.Tensor, known: TopKRange
) -> torch.Tensor:
    """Returns top_k as int32 [N] on the device of cu_seqlens, without reading that device.

    Raises ValueError for a wrong dtype, shape or device, and for values below 1 or outside the
    known range where they can be seen (an int, or a tensor on the CPU); on other devices they
    become the nearest allowed ones.
    """
    num_sequences = cu_seqlens.numel() - 1
    if not isinstance(top_k, torch.Tensor):
        if not isinstance(top_k, int) or top_k < 1:
            raise _wrong(top_k, "an int, at least 1: the own block counts")
        return torch.full((num_sequences,), top_k, dtype=torch.int32, device=cu_seqlens.device)
    if top_k.dtype != torch.int32 or top_k.shape not in {(num_sequences,), (1,)}:
        got = f"{top_k.dtype} {tuple(top_k.shape)}"
        raise _wrong(got, f"an int, int32 [{num_sequences}] or int32 [1]")
    if top_k.device != cu_seqlens.device:
        raise ValueError(
            f"sbkernels: top_k.device: got {top_k.device}, wanted {cu_seqlens.device} as q."
        )
    if top_k.device.type != "cpu":
        return top_k.clamp(*known).expand(num_sequences)
    if (top_k < 1).any():
        raise _wrong(top_k.tolist(), "at least 1 everywhere: the own block counts")
    if ((top_k < known.least) | (top_k > known.most)).any():
        raise _outside(top_k.tolist(), known)
    return top_k.expand(num_sequences)


def _wrong(got: object, wanted: str) -> ValueError:
    return ValueError(f"sbkernels: top_k: got {got}, wanted {wanted}.")


def _outside(got: object, known: TopKRange) -> ValueError:
    wanted = f"{known.least} (min_top_k) to {known.most} (max_top_k)"
    return ValueError(f"sbkernels: top_k: got {got}, wanted {wanted}.")
