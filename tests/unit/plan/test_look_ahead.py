"""Look-ahead: what a change of sampling may change, and what it never does."""

from collections import Counter

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sbcore.config.data import SamplingConfig
from sbcore.config.method import SabBalancer
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.plan.look_ahead import _level, regrouped
from sbcore.plan.sampling import describe_sampling, drawn_steps, sampling_digest, steps
from sbcore.plan.simulate import Method, Scene, replay
from sbcore.types import Barrier, IntArray, Topology

AHEAD = SamplingConfig(global_batch=8, num_epochs=2, look_ahead=4)


def drawn(count: int, seed: int = 0) -> IntArray:
    rng = np.random.default_rng(seed)
    return np.clip(rng.lognormal(8.8, 1.1, count), 64, 65536).astype(np.int64)


@settings(deadline=None)
@given(count=st.integers(1, 120), look_ahead=st.integers(1, 6), seed=st.integers(0, 99))
def test_every_sample_once_per_epoch_in_batches_of_the_same_sizes(
    count: int, look_ahead: int, seed: int
) -> None:
    sampling = AHEAD.model_copy(update={"look_ahead": look_ahead})
    lengths = drawn(count, seed)
    found = list(drawn_steps(lengths, sampling, seed=seed))
    plain = list(steps(count, sampling, seed=seed))
    assert [len(batch) for batch in found] == [len(batch) for batch in plain]
    half = len(found) // 2
    for epoch in (found[:half], found[half:]):
        assert Counter(np.concatenate(epoch).tolist()) == Counter(range(count))


@settings(deadline=None)
@given(seed=st.integers(0, 500), token_band=st.floats(0.05, 0.9), window=st.integers(1, 6))
@example(seed=112, token_band=0.1, window=4)  # regrouped, it would be farther out than drawn
def test_tokens_stay_in_the_band_or_nearer_than_drawn(
    seed: int, token_band: float, window: int
) -> None:
    lengths = drawn(8 * window, seed)
    batches = [np.arange(8 * at, 8 * at + 8) for at in range(window)]
    found = regrouped(batches, lengths, token_band=token_band)
    before, after = (np.array([lengths[b].sum() for b in group]) for group in (batches, found))
    mean = before.mean()
    allowed = max(token_band * mean, np.abs(before - mean).max())
    assert np.abs(after - mean).max() <= allowed * (1 + 1e-9)


def test_the_band_is_kept_where_no_single_sequence_breaks_it() -> None:
    lengths, kept = np.random.default_rng(0).integers(1000, 20_000, 64 * 32), []
    for start in range(0, 64 * 32, 64):
        batches = [np.arange(at, at + 16) for at in range(start, start + 64, 16)]
        found = regrouped(batches, lengths, token_band=0.1)
        tokens = np.array([lengths[batch].sum() for batch in found])
        kept.append(np.abs(tokens / tokens.mean() - 1).max() <= 0.1)
    assert all(kept)


def test_long_sequences_meet_and_steps_wait_for_fewer_of_them() -> None:
    lengths = drawn(64 * 16)
    plain = [lengths[batch].max() for batch in steps(1024, SamplingConfig(), seed=0)]
    ahead = SamplingConfig(look_ahead=4)
    longest = [lengths[batch].max() for batch in drawn_steps(lengths, ahead, seed=0)]
    assert sum(longest) < 0.9 * sum(plain)
    tokens = [lengths[batch].sum() for batch in drawn_steps(lengths, ahead, seed=0)]
    assert np.std(tokens) / np.mean(tokens) < 0.35


def test_it_pays_where_the_longest_sequence_binds() -> None:
    latency = AnalyticLatencyModel(256, 24, 100.0, 5.0, 4e-3, np.array([0.05, 1e-4, 4e-9, 2e-9]))
    topology, lengths = Topology(8, Barrier.STEP, 65536, 0), drawn(16 * 40)
    plain, ahead = (
        replay(
            Scene(lengths, latency, 256, 32, SamplingConfig(look_ahead=w), topology, seed=0),
            Method(SabBalancer(), max_sequences=0, decide=None),
        )
        for w in (1, 4)
    )
    assert ahead.speedup_over(plain) > 1.05


def test_it_is_a_pure_function_of_the_seed_and_named_a_change() -> None:
    lengths = drawn(100)

    def digest(sampling: SamplingConfig, seed: int = 0) -> str:
        return sampling_digest(drawn_steps(lengths, sampling, seed=seed))

    plain = AHEAD.model_copy(update={"look_ahead": 1})
    assert digest(AHEAD) == digest(AHEAD)
    assert len({digest(AHEAD), digest(AHEAD, seed=1), digest(plain)}) == 3
    assert digest(plain) == sampling_digest(steps(100, plain, seed=0))
    assert describe_sampling(plain) == "shuffled"
    assert describe_sampling(AHEAD).endswith("25 % of their tokens: a change of sampling")


def test_steps_end_where_they_should() -> None:
    cut = AHEAD.model_copy(update={"max_steps": 5})
    assert len(list(drawn_steps(drawn(100), cut, seed=0))) == 5


def test_the_swap_that_leaves_least_between_two_batches_is_made() -> None:
    lengths = np.array([15, 9, 1, 1, 1, 8])
    batches = np.arange(6).reshape(2, 3)
    _level(batches, lengths, most=0.5)
    assert sorted(lengths[batches].sum(axis=1).tolist()) == [17, 18]


def test_where_no_swap_helps_none_is_made() -> None:
    batches = np.arange(3).reshape(3, 1)
    _level(batches, np.array([10, 5, 1]), most=0.0)
    assert batches.tolist() == [[0], [1], [2]]


def test_a_digest_knows_where_a_batch_ends() -> None:
    ids = np.arange(3)
    assert sampling_digest([ids[:2], ids[2:]]) != sampling_digest([ids[:1], ids[1:]])
