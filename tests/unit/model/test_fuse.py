import pytest
import torch

from sbcore.errors import SparseBalanceError
from sbcore.model import fuse
from sbcore.model.fuse import check_liger, choose_loss

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_a_cpu_computes_the_loss_in_chunks():
    assert choose_loss("auto", CPU) == choose_loss("chunked", CPU) == "chunked"
    assert choose_loss("chunked", GPU) == "chunked"


def test_a_gpu_takes_the_fused_loss_where_it_is_installed(monkeypatch):
    assert choose_loss("auto", GPU) == choose_loss("liger", GPU) == "liger"
    monkeypatch.setattr(fuse, "_NAME", "no_such_package")
    assert choose_loss("auto", GPU) == "chunked"


def test_what_is_asked_for_and_cannot_be_is_refused(monkeypatch):
    with pytest.raises(SparseBalanceError, match=r"train.fused_loss = liger: needs a GPU"):
        choose_loss("liger", CPU)
    monkeypatch.setattr(fuse, "_NAME", "no_such_package")
    with pytest.raises(SparseBalanceError, match=r"fused_layers = true: .* is not installed"):
        check_liger("train.fused_layers = true", GPU)
