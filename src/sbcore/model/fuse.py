"""Which implementation runs: liger's fused kernels, or what every machine has.

A fused loss saves tens of gigabytes of logits. Fused layers save memory traffic in long
micro-batches and cost host time in short ones, so they are a choice apart.
"""

import importlib.util
from typing import TYPE_CHECKING, Literal

import torch

from sbcore.errors import SparseBalanceError
from sbcore.model.loss import Fusion

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "liger_kernel"


def choose_loss(wanted: Literal["auto", "liger", "chunked"], device: torch.device) -> Fusion:
    """Returns what computes the loss; "auto" takes liger on a GPU where it is installed.

    Raises:
        SparseBalanceError: liger is asked for and cannot run.
    """
    if wanted == "liger":
        check_liger("train.fused_loss = liger", device)
    if wanted == "chunked" or device.type != "cuda":
        return "chunked"
    return "liger" if _installed() else "chunked"


def check_liger(setting: str, device: torch.device) -> None:
    """Refuses a setting that needs liger where it is missing or there is no GPU for it."""
    if not (_installed() and device.type == "cuda"):
        what = "needs a GPU" if _installed() else "liger-kernel is not installed"
        raise SparseBalanceError(f"{setting}: {what}. leave it out, or pip install liger-kernel.")


def fuse_layers(model: "PreTrainedModel") -> None:
    """Replaces norms, rotary embedding and feed-forward by liger's kernels, in the whole process.

    The library's modules are changed, so models made later in this process have them too.
    """
    from liger_kernel.transformers.monkey_patch import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(
        model=model, rope=True, rms_norm=True, swiglu=True, fused_linear_cross_entropy=False
    )


def _installed() -> bool:
    return importlib.util.find_spec(_NAME) is not None
