"""1F1B: the makespan against a simulation of events, and plans under the barrier `pipeline`."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbcore.plan.pipeline import FORWARD_SHARE, makespan_ms, small_ends

Operation = tuple[str, int]


def one_f_one_b(stage: int, num_stages: int, num_micro: int) -> list[Operation]:
    """Returns what a stage does, in order: warm-up, forward and backward in turn, the rest."""
    ahead = min(num_stages - 1 - stage, num_micro)
    work = [("F", m) for m in range(ahead)]
    for m in range(num_micro - ahead):
        work += [("F", ahead + m), ("B", m)]
    return work + [("B", m) for m in range(num_micro - ahead, num_micro)]


def simulated(times: list[float], num_stages: int) -> float:
    """Returns the end of the last operation: whoever can start does, until nothing is left."""
    queues = [one_f_one_b(s, num_stages, len(times)) for s in range(num_stages)]
    clock, ended = [0.0] * num_stages, {}
    while any(queues):
        progress = False
        for stage, queue in enumerate(queues):
            if not queue:
                continue
            kind, m = queue[0]
            waits = ("F", m, stage - 1) if kind == "F" else ("B", m, stage + 1)
            if kind == "B" and stage == num_stages - 1:
                waits = ("F", m, stage)
            ready = 0.0 if kind == "F" and stage == 0 else ended.get(waits)
            if ready is None:
                continue
            share = FORWARD_SHARE if kind == "F" else 1 - FORWARD_SHARE
            clock[stage] = max(clock[stage], ready) + times[m] * share / num_stages
            ended[(kind, m, stage)] = clock[stage]
            queue.pop(0)
            progress = True
        assert progress, "a deadlock"
    return max(ended.values())


@settings(deadline=None, max_examples=200)
@given(
    times=st.lists(st.floats(0, 100), min_size=1, max_size=9),
    num_stages=st.integers(1, 6),
)
def test_the_makespan_is_that_of_simulated_events(times: list[float], num_stages: int) -> None:
    expected = simulated(times, num_stages)
    assert makespan_ms(np.array([times]), num_stages)[0] == pytest.approx(expected, abs=1e-9)


def test_equal_micro_batches_have_the_bubble_of_the_textbook() -> None:
    """(M + P - 1) slots of t / P each."""
    for num_stages in (1, 2, 4, 8):
        made = makespan_ms(np.full((1, 16), 3.0), num_stages)[0]
        assert made == pytest.approx((16 + num_stages - 1) * 3.0 / num_stages)


def test_pipelines_do_not_touch_each_other() -> None:
    times = np.random.default_rng(0).uniform(1, 9, (5, 7))
    apart = [makespan_ms(row[None], 4)[0] for row in times]
    assert makespan_ms(times, 4) == pytest.approx(apart)


def test_equal_micro_batches_keep_their_order_on_every_machine() -> None:
    """However its processor sorts: the light ones by their number, then the heavy ones."""
    order = small_ends(np.tile([1.0, 0.0], 40))
    rising = [*range(1, 80, 2), *range(0, 80, 2)]
    assert order.tolist() == rising[::2] + rising[1::2][::-1]


def test_small_ends_beat_almost_every_other_order() -> None:
    rng, beaten = np.random.default_rng(0), []
    for _ in range(10):
        times = rng.lognormal(0, 1, 6)
        ours = makespan_ms(times[small_ends(times)][None], 3)[0]
        every = np.array([times[list(order)] for order in permutations(range(6))])
        beaten.append((makespan_ms(every, 3) >= ours * (1 - 1e-9)).mean())
    assert small_ends(np.array([4.0, 1.0, 3.0, 2.0])).tolist() == [1, 2, 0, 3]
    assert np.mean(beaten) > 0.9
