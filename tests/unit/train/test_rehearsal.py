"""What is run before the first step: a sequence of each size that kernels are compiled for."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sbcore.train.rehearsal import _repeats, one_of_each_size, packs_of, size_of
from sbcore.types import Barrier

GLOBAL_BATCHES = st.lists(
    st.lists(st.integers(1, 70_000), min_size=1, max_size=6), min_size=1, max_size=5
)


def plan_of(steps):
    return SimpleNamespace(
        num_steps=len(steps), step=lambda i: SimpleNamespace(lengths=np.array(steps[i]))
    )


def test_sizes_are_powers_of_two_rounded_up():
    assert size_of(np.array([1, 2, 3, 4, 5, 256, 257, 65_536])).tolist() == [
        0,
        1,
        2,
        2,
        3,
        8,
        9,
        16,
    ]


@given(steps=GLOBAL_BATCHES)
def test_every_size_of_the_plan_is_met_once(steps):
    chosen = [steps[step][place] for step, place in one_of_each_size(plan_of(steps)).values()]
    met = {(length - 1).bit_length() for lengths in steps for length in lengths}
    assert [(length - 1).bit_length() for length in chosen] == sorted(met)
    longest_first = sorted((length for lengths in steps for length in lengths), reverse=True)
    shortest = {(length - 1).bit_length(): length for length in longest_first}
    assert chosen == [shortest[size] for size in sorted(met)]


def test_company_is_the_shortest_other_and_must_fit():
    lengths = np.array([900, 80, 100, 70])
    any_number = {"max_tokens": 1000, "max_sequences": 0}
    assert packs_of(lengths, 0, **any_number) == [(0,), (0, 3)]
    assert packs_of(lengths, 0, max_tokens=970, max_sequences=0) == [(0,), (0, 3)]
    assert packs_of(lengths, 0, max_tokens=960, max_sequences=0) == [(0,)]
    assert packs_of(lengths, 3, **any_number) == [(3,), (3, 1)]
    assert packs_of(lengths[:1], 0, **any_number) == [(0,)]


def test_who_takes_one_sequence_at_a_time_needs_no_memory_for_two():
    assert packs_of(np.array([900, 80]), 0, max_tokens=1000, max_sequences=1) == [(0,)]


def repeats(barrier, num_micro_batches):
    topology, packs = SimpleNamespace(barrier=barrier), ((0,),) * num_micro_batches
    trainer = SimpleNamespace(
        stage=SimpleNamespace(topology=topology), ranks=SimpleNamespace(rank=1)
    )
    plan = SimpleNamespace(batch=SimpleNamespace(micro_batches=(((0,),), packs)))
    return _repeats(trainer, plan)


def test_the_largest_runs_beside_gradients_where_they_wait_for_the_end_of_the_step():
    assert (repeats(Barrier.STEP, 3), repeats(Barrier.STEP, 1)) == (2, 1)
    assert (repeats(Barrier.MICRO, 3), repeats(Barrier.MICRO, 1)) == (1, 1)
