import pytest

from sbcore.ablation import deadline
from sbcore.ablation.deadline import Deadline


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand, and ranks that hear what rank 0 says."""
    now = [100.0]
    monkeypatch.setattr(deadline.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(deadline.dist, "broadcast", lambda tensor, src, group: None)
    return now


def test_what_is_left_is_shared_out(clock):
    whole = Deadline(60.0, group=None)
    first = whole.share(1 / 3)
    clock[0] += 19
    assert first.may_begin()
    clock[0] += 2
    assert not first.may_begin()
    clock[0] += 9  # the first took half of the time
    second = whole.share(1 / 2)
    clock[0] += 14
    assert second.may_begin()
    clock[0] += 2
    assert not second.may_begin()


def test_a_round_that_would_end_too_late_does_not_begin(clock):
    share = Deadline(60.0, group=None).share(1)
    begun = []
    for seconds in (30, 4, 9, 5, 6):  # the first one compiles
        begun.append(share.may_begin())
        clock[0] += seconds
    assert begun == [True, True, True, True, True]
    assert not share.may_begin()  # 6 s are left, and one of them took 9


def test_the_answer_is_that_of_rank_0(clock, monkeypatch):
    monkeypatch.setattr(deadline.dist, "broadcast", lambda tensor, src, group: tensor.fill_(0))
    assert not Deadline(60.0, group=None).share(1).may_begin()
