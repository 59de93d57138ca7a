"""How many tokens a micro-batch may hold before the device's memory is full.

Memory grows with the packed tokens alone (see latency/memory.py), so a limit in GiB becomes a cap
in tokens, which balancers keep anyway. A sequence above it travels alone, if it fits alone.
"""

from collections.abc import Callable

import numpy as np

from sbcore.errors import SparseBalanceError
from sbcore.latency.model import TableLatencyModel
from sbcore.plan.index import Samples

_LOOKED_AT = 256
"""Sizes below the cap that must fit too: recomputation lets larger ones need less memory."""


def capped_tokens(
    latency: TableLatencyModel, samples: Samples, *, max_tokens: int, max_memory_gib: float
) -> int:
    """Returns max_tokens, or less where micro-batches would pass max_memory_gib; at least 1.

    Raises:
        SparseBalanceError: The table holds no memory, or a sample passes the limit alone.
    """

    def fits(num_tokens: int) -> bool:
        gib = latency.memory_gib(np.array([num_tokens]))
        return gib is not None and gib <= max_memory_gib

    if latency.memory is None:
        raise SparseBalanceError(
            f"topology.max_memory_gib = {max_memory_gib:g}: the latency table holds no memory "
            "(peak_gib). measure it on a GPU with profile-latency, or set it to null."
        )
    _check_alone(latency, samples, max_memory_gib=max_memory_gib)
    return _largest(fits, max_tokens)


def _check_alone(latency: TableLatencyModel, samples: Samples, *, max_memory_gib: float) -> None:
    for length in np.unique(samples.lengths)[::-1].tolist():
        gib = latency.memory_gib(np.array([length]))
        if gib is not None and gib > max_memory_gib:
            which = int(samples.sample_ids[samples.lengths == length][0])
            raise SparseBalanceError(
                f"topology.max_memory_gib = {max_memory_gib:g}: sample_id {which} of {length} "
                f"tokens needs {gib:.1f} GiB alone. lower data.max_sample_tokens, recompute "
                "layers, or raise the limit."
            )


def _largest(fits: Callable[[int], bool], max_tokens: int) -> int:
    """Returns the largest size up to max_tokens that fits with everything below it."""
    sizes = np.unique(np.linspace(1, max_tokens, _LOOKED_AT).astype(np.int64)).tolist()
    failed = next((at for at, size in enumerate(sizes) if not fits(size)), None)
    if failed is None:
        return max_tokens
    low, high = sizes[failed - 1] if failed else 1, sizes[failed]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return int(low)
