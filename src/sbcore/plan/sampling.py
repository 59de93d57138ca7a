"""Which sequences make up each global batch: a pure function, equal for all variants.

The global batch is the largest scope within which a layout leaves the optimizer's mathematics
alone. Look-ahead chooses batches by length, which is another way of sampling: off by default.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256

import numpy as np

from sbcore.config.data import SamplingConfig
from sbcore.plan.look_ahead import regrouped
from sbcore.types import IntArray


def global_batches(
    num_samples: int, *, global_batch: int, seed: int, epoch: int
) -> Iterator[IntArray]:
    """Yields the epoch's global batches: every sample once; the last one may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(num_samples)
    for start in range(0, num_samples, global_batch):
        yield order[start : start + global_batch]


def drawn_steps(lengths: IntArray, sampling: SamplingConfig, *, seed: int) -> Iterator[IntArray]:
    """Yields the global batch of every step as `steps` does, look-ahead included."""
    if sampling.look_ahead == 1:
        yield from steps(len(lengths), sampling, seed=seed)
        return
    step = 0
    for epoch in range(sampling.num_epochs):
        for batch in _looked_ahead(lengths, sampling, seed=seed, epoch=epoch):
            if step == sampling.max_steps > 0:
                return
            yield batch
            step += 1


def _looked_ahead(
    lengths: IntArray, sampling: SamplingConfig, *, seed: int, epoch: int
) -> Iterator[IntArray]:
    """Yields an epoch's global batches, regrouped and shuffled window by window.

    A last batch that is smaller stays last, as drawn.
    """
    size = sampling.global_batch
    drawn = list(global_batches(len(lengths), global_batch=size, seed=seed, epoch=epoch))
    whole = [batch for batch in drawn if len(batch) == size]
    for start in range(0, len(whole), sampling.look_ahead):
        window = whole[start : start + sampling.look_ahead]
        batches = regrouped(window, lengths, token_band=sampling.token_band)
        for at in np.random.default_rng([seed, epoch, start]).permutation(len(batches)):
            yield batches[at]
    yield from drawn[len(whole) :]


def steps(num_samples: int, sampling: SamplingConfig, *, seed: int) -> Iterator[IntArray]:
    """Yields the global batch of every step as shuffled: all epochs, up to max_steps."""
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


def describe_sampling(sampling: SamplingConfig) -> str:
    """Returns in words how global batches come about, for people who read a summary."""
    if sampling.look_ahead == 1:
        return "shuffled"
    return (
        f"shuffled, then {sampling.look_ahead} global batches regrouped by length within "
        f"{100 * sampling.token_band:g} % of their tokens: a change of sampling"
    )
