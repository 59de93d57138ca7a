"""Who speaks when; ranks among each other stand in tests/distributed/test_complaints.py."""

import pytest

from sbcore.errors import SparseBalanceError
from sbcore.train import complaint
from sbcore.train.memory import MicroBatchTooLarge, ModelTooLarge


@pytest.mark.parametrize(
    ("kind", "waits"), [(SparseBalanceError, 1), (MicroBatchTooLarge, 0), (ModelTooLarge, 0)]
)
def test_a_rank_that_alone_knows_speaks_at_once(monkeypatch, capsys, kind, waits):
    slept = []
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(complaint.time, "sleep", slept.append)
    complaint.complain(kind("too large"))
    assert len(slept) == waits
    assert capsys.readouterr().err.endswith("too large\n")
