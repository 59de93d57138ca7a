"""Which sequences are run before the first step: one of each size, alone and in company."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sbcore.attention.interface import MIN_MEAN_TOKENS, suit_one_by_one
from sbcore.train.sizes import one_of_each_size, packs_of, size_of

GLOBAL_BATCHES = st.lists(
    st.lists(st.integers(1, 70_000), min_size=1, max_size=6), min_size=1, max_size=5
)


def plan_of(steps):
    return SimpleNamespace(
        num_steps=len(steps), step=lambda i: SimpleNamespace(lengths=np.array(steps[i]))
    )


def test_sizes_are_powers_of_two_rounded_up():
    assert size_of(np.array([0, 1, 2, 3, 4, 5, 256, 257, 65_536])).tolist() == [
        0,
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


ANY_NUMBER = {"max_tokens": 100_000, "max_sequences": 0, "covered": 0}


def test_company_is_the_shortest_other_and_must_fit():
    lengths = np.array([900, 80, 100, 70])
    assert packs_of(lengths, 0, **ANY_NUMBER) == [(0,), (0, 3)]
    assert packs_of(lengths, 0, **ANY_NUMBER | {"max_tokens": 970}) == [(0,), (0, 3)]
    assert packs_of(lengths, 0, **ANY_NUMBER | {"max_tokens": 969}) == [(0,)]
    assert packs_of(lengths, 3, **ANY_NUMBER) == [(3,), (3, 1)]
    assert packs_of(lengths[:1], 0, **ANY_NUMBER) == [(0,)]


def test_who_takes_one_sequence_at_a_time_needs_no_memory_for_two():
    limits = ANY_NUMBER | {"max_sequences": 1, "covered": 900}
    assert packs_of(np.array([900, 80, 70, 60]), 0, **limits) == [(0,)]


def test_what_the_budget_covers_is_also_run_in_as_much_company_as_makes_it_one_call():
    long = 2 * MIN_MEAN_TOKENS
    lengths = np.array([long, 3000, MIN_MEAN_TOKENS, 3000, 2000])
    limits = ANY_NUMBER | {"covered": long}
    assert packs_of(lengths, 0, **limits) == [(0,), (0, 4), (0, 4, 1, 3)]
    assert packs_of(lengths, 0, **limits | {"covered": long - 1}) == [(0,), (0, 4)]
    assert packs_of(lengths, 0, **limits | {"max_sequences": 3}) == [(0,), (0, 4)]
    assert packs_of(lengths, 0, **limits | {"max_tokens": 16_191}) == [(0,), (0, 4)]
    assert packs_of(lengths, 4, **limits) == [(4,), (4, 1), (4, 1, 3)]


@given(
    lengths=st.lists(st.integers(1, 20_000), min_size=1, max_size=12).map(np.array),
    covered=st.integers(0, 20_000),
    max_tokens=st.integers(20_000, 60_000),
    max_sequences=st.integers(0, 5),
)
def test_packs_keep_to_the_limits_and_end_with_the_smallest_one_call(
    lengths, covered, max_tokens, max_sequences
):
    limits = {"max_tokens": max_tokens, "max_sequences": max_sequences, "covered": covered}
    packs = packs_of(lengths, 0, **limits)
    sizes = [len(pack) for pack in packs]
    assert sizes[0] == 1
    assert sizes == sorted(set(sizes))
    assert len(sizes) <= 3
    for pack in packs:
        assert pack[0] == 0
        assert len(set(pack)) == len(pack)
        assert len(pack) <= (max_sequences or len(lengths))
        assert len(pack) == 1 or lengths[list(pack)].sum() <= max_tokens
        assert len(pack) <= 2 or not suit_one_by_one(tuple(lengths[list(pack)]))
    shortest = np.sort(lengths[1:])
    for more in range(2, (max_sequences or len(lengths))):
        pack = (lengths[0], *shortest[:more])
        if len(pack) == more + 1 and sum(pack) <= max_tokens and lengths[0] <= covered:
            assert suit_one_by_one(pack) or (len(sizes) == 3 and sizes[2] <= more + 1)
