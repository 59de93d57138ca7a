"""The budget k0 everywhere: what all other policies are compared with."""

import numpy as np

from sbcore.config.method import FixedTuner
from sbcore.tune.policy import Observation
from sbcore.types import IntArray


class FixedPolicy:
    """Keeps k0."""

    def __init__(self, config: FixedTuner) -> None:
        self.config = config

    def decide(self, observation: Observation) -> IntArray:
        """Returns k0 for every layer and sequence, [num_layers, N]."""
        shape = (observation.latency.num_layers, len(observation.lengths))
        return np.full(shape, observation.top_k, dtype=np.int64)
