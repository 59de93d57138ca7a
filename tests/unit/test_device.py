"""Each rank gets a device of its own, or all get the processor; what cannot be is one line."""

import pytest
import torch

from sbcore.device import choose_device
from sbcore.errors import SparseBalanceError


@pytest.mark.parametrize(
    ("wanted", "available", "num_ranks", "expected"),
    [
        ("auto", 0, 2, "cpu"),
        ("auto", 1, 2, "cpu"),
        ("auto", 2, 2, "cuda:1"),
        ("auto", 8, 2, "cuda:1"),
        ("cuda", 2, 2, "cuda:1"),
        ("cpu", 8, 2, "cpu"),
    ],
)
def test_ranks_get_gpus_where_each_has_one(
    monkeypatch: pytest.MonkeyPatch, wanted: str, available: int, num_ranks: int, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: available)
    found = choose_device(wanted, num_ranks=num_ranks, local_rank=1)
    assert found == torch.device(expected)


@pytest.mark.parametrize(("num_ranks", "ranks"), [(1, "one rank"), (4, "4 ranks")])
def test_too_few_gpus_are_named(
    monkeypatch: pytest.MonkeyPatch, num_ranks: int, ranks: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SparseBalanceError) as caught:
        choose_device("cuda", num_ranks=num_ranks, local_rank=0)
    assert str(caught.value) == (
        f"topology.device = cuda: 0 GPUs for {ranks} on this host. use device: cpu or fewer ranks."
    )
