"""Averages of the budgets really used, by layer and length: what the next plan expects.

L layers, N sequences, b length bucket (sequences whose number of blocks agrees up to a factor of
two). The state is integers, 1/256 block each, so that equal updates give equal budgets on every
rank and every machine, and a run that goes on from a checkpoint plans as one that never stopped.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbcore.config.method import SabBalancer
from sbcore.errors import SparseBalanceError
from sbcore.types import IntArray

_NUM_BUCKETS = 24
"""Sequences of up to 2**23 blocks; longer ones share the last bucket."""
_UNIT = 256
"""Parts of a block that averages are kept in."""


class BudgetAverages:
    """Moving averages of top_k; buckets that nothing fell into expect the fixed budget k0.

    ``num_updates`` is the version of the averages.
    """

    def __init__(
        self, config: SabBalancer, *, num_layers: int, block_size: int, top_k: int
    ) -> None:
        self.num_updates = 0
        self._decay = round(config.budget_decay * _UNIT)
        self._block_size = block_size
        self._parts = np.full((num_layers, _NUM_BUCKETS), top_k * _UNIT, dtype=np.int64)
        self._seen = np.zeros(_NUM_BUCKETS, dtype=np.bool_)

    def update(self, lengths: IntArray, top_k: IntArray) -> None:
        """Takes a step's budgets [L, N] of sequences [N] into the averages.

        All sequences of a bucket count alike; the first step of a bucket counts in full.
        """
        bucket = self._buckets(lengths)
        for at in np.unique(bucket).tolist():
            used = top_k[:, bucket == at]
            mean = used.sum(axis=1) * _UNIT // used.shape[1]
            keep = self._decay if self._seen[at] else 0
            kept = keep * self._parts[:, at] + (_UNIT - keep) * mean
            self._parts[:, at] = (kept + _UNIT // 2) // _UNIT
            self._seen[at] = True
        self.num_updates += 1

    def expect(self, lengths: IntArray) -> IntArray:
        """Returns the budgets to plan with, whole blocks, int64 [L, N]."""
        parts: IntArray = self._parts[:, self._buckets(lengths)]
        return np.maximum((parts + _UNIT // 2) // _UNIT, 1)

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs to plan as this one would: a number and two arrays."""
        return {
            "num_updates": self.num_updates,
            "parts": self._parts.copy(),
            "seen": self._seen.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over the averages.

        Raises:
            SparseBalanceError: They are of a model with another number of layers.
        """
        parts: IntArray = np.asarray(state["parts"], dtype=np.int64)
        seen: NDArray[np.bool_] = np.asarray(state["seen"], dtype=np.bool_)
        if parts.shape != self._parts.shape:
            raise SparseBalanceError(
                f"averages of budgets: layers x buckets = {parts.shape}: this model has "
                f"{self._parts.shape}. resume with the model that was trained."
            )
        self.num_updates, self._parts, self._seen = int(state["num_updates"]), parts, seen

    def _buckets(self, lengths: IntArray) -> IntArray:
        num_blocks = np.maximum(-(-lengths // self._block_size), 1)
        rounded_up = np.ceil(np.log2(num_blocks)).astype(np.int64)
        return np.minimum(rounded_up, _NUM_BUCKETS - 1)
