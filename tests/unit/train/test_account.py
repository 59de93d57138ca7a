from sbcore.train.account import tracked_numbers


def test_ranks_are_tracked_one_by_one_for_computing_and_waiting_alone():
    row = {
        "step": 3,
        "loss": None,
        "step_ms": 10.0,
        "compute_ms": [6.0, 7.0],
        "waiting_ms": [2.0, 1.0],
        "data_ms": [0.5, 0.25],
        "checkpoint_ms": [0.0, 40.0],
        "measured": True,
    }
    assert tracked_numbers(row) == {
        "loss": None,
        "step_ms": 10.0,
        "compute_ms.rank0": 6.0,
        "compute_ms.rank1": 7.0,
        "waiting_ms.rank0": 2.0,
        "waiting_ms.rank1": 1.0,
        "data_ms": 0.5,
        "checkpoint_ms": 40.0,
    }
