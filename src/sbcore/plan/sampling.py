"""Which sequences make up each global batch: a pure function, equal for all variants.

The global batch is the largest scope within which a layout leaves the optimizer's mathematics
alone; choosing batches by length would be another way of sampling.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256

import numpy as np

from sbcore.config.data import SamplingConfig
from sbcore.types import IntArray


def global_batches(
    num_samples: int, *, global_batch: int, seed: int, epoch: int
) -> Iterator[IntArray]:
    """Yields the epoch's global batches: every sample once; the last one may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(num_samples)
    for start in range(0, num_samples, global_batch):
        yield order[start : start + global_batch]


def steps(num_samples: int, sampling: SamplingConfig, *, seed: int) -> Iterator[IntArray]:
    """Yields the global batch of every step: all epochs, up to max_steps."""
    step = 0
    for epoch in range(sampling.num_epochs):
        batches = global_batches(
            num_samples, global_batch=sampling.global_batch, seed=seed, epoch=epoch
        )
        for batch in batches:
            if step == sampling.max_steps > 0:
                return
            yield batch
            step += 1


def sampling_digest(batches: Iterable[IntArray]) -> str:
    """Returns the sha256 of a sequence of global batches, given as sample ids.

    The order of the batches counts, the order inside a batch does not: so plans of any number of
    ranks, balancer, barrier and cost have one digest as long as they draw the same batches.
    """
    digest = sha256()
    for sample_ids in batches:
        digest.update(len(sample_ids).to_bytes(8, "little"))
        digest.update(np.sort(sample_ids).astype("<i8").tobytes())
    return digest.hexdigest()


def step_seed(seed: int, step: int) -> int:
    """Returns the seed of a step's balancer."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
