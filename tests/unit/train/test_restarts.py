"""Restarts as ranks see them; torchrun itself stands in tests/distributed."""

import pytest
import torch.distributed as dist

from sbcore.train.restarts import are_restarted


@pytest.mark.parametrize(
    ("mine", "others", "expected"), [(0, 0, False), (0, 1, True), (2, 0, True), (None, 0, False)]
)
def test_a_restart_of_any_rank_is_one_of_all(monkeypatch, mine, others, expected):
    def gather(values, value, group):
        values[:] = [value, others]

    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    if mine is not None:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(mine))
    monkeypatch.setattr(dist, "get_world_size", lambda group: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    assert are_restarted(None) is expected
