import pytest
import torch

from sbcore.errors import SparseBalanceError
from sbcore.model import fuse
from sbcore.model.fuse import choose_layers

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_a_cpu_runs_the_librarys_layers():
    assert choose_layers("auto", CPU) == choose_layers("off", CPU) == "transformers"
    assert choose_layers("off", GPU) == "transformers"


def test_a_gpu_takes_fused_layers_where_they_are_installed(monkeypatch):
    assert choose_layers("auto", GPU) == choose_layers("liger", GPU) == "liger"
    monkeypatch.setattr(fuse, "_NAME", "no_such_package")
    assert choose_layers("auto", GPU) == "transformers"


def test_what_is_asked_for_and_cannot_be_is_refused(monkeypatch):
    with pytest.raises(SparseBalanceError, match=r"train.fused_layers = liger: needs a GPU"):
        choose_layers("liger", CPU)
    monkeypatch.setattr(fuse, "_NAME", "no_such_package")
    with pytest.raises(SparseBalanceError, match="liger-kernel is not installed"):
        choose_layers("liger", GPU)
