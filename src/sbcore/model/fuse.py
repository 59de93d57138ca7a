"""Which implementation of the layers runs: the library's own, or liger's fused kernels.

Fusing matters twice: fewer bytes in long micro-batches, fewer launches in short ones, which cost
their launching and not their work.
"""

import importlib.util
from typing import TYPE_CHECKING, Literal

import torch

from sbcore.errors import SparseBalanceError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Layers = Literal["liger", "transformers"]

_NAME = "liger_kernel"


def choose_layers(wanted: Literal["auto", "liger", "off"], device: torch.device) -> Layers:
    """Returns what runs; "auto" takes liger on a GPU where it is installed.

    Raises:
        SparseBalanceError: liger is asked for and missing, or there is no GPU for it.
    """
    if wanted == "off" or (wanted == "auto" and device.type != "cuda"):
        return "transformers"
    installed = importlib.util.find_spec(_NAME) is not None
    if wanted == "liger" and not (installed and device.type == "cuda"):
        what = "needs a GPU" if installed else "liger-kernel is not installed"
        raise SparseBalanceError(
            f"train.fused_layers = liger: {what}. use auto, or pip install liger-kernel."
        )
    return "liger" if installed else "transformers"


def fuse_layers(model: "PreTrainedModel") -> None:
    """Replaces norms, rotary embedding and feed-forward of the model by liger's kernels."""
    from liger_kernel.transformers.monkey_patch import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(
        model=model, rope=True, rms_norm=True, swiglu=True, fused_linear_cross_entropy=False
    )
