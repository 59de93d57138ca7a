"""The model spread over ranks: FSDP2, sums instead of means.

The loss is already divided by the target tokens of the whole global batch, so gradients are
summed over ranks: then any plan of the same global batch gives the same gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from sbcore.types import Barrier


def shard_model(
    model: nn.Module,
    layers: Sequence[nn.Module],
    mesh: DeviceMesh,
    *,
    barrier: Barrier,
    dtype: torch.dtype,
    layers_per_shard: int,
    keep_gathered: bool,
) -> nn.Module:
    """Returns the model sharded over the mesh, so many layers in one collective.

    Under barrier `micro` parameters are gathered anew for each forward and backward (least memory),
    or, with ``keep_gathered``, once in a step: gradients meet in every micro-batch all the same.
    Under `step` they stay gathered within a step. Few collectives cost less host time, many less
    memory. What is gathered next is queued while layers run: FSDP2 does so in both directions, as
    long as the host is ahead of the device.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype is torch.float32 else dtype,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # it would copy the call's dataclasses, and there is nothing to
    )
    groups = [
        list(layers[start : start + layers_per_shard])
        for start in range(0, len(layers), layers_per_shard)
    ]
    for part in (*groups, [model]):
        fully_shard(
            part if len(part) > 1 else part[0],
            mesh=mesh,
            mp_policy=policy,
            reshard_after_forward=barrier is Barrier.MICRO and not keep_gathered,
        )
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            # gloo has no scaled sum; with a factor of one a plain sum is the same.
            module.set_force_sum_reduction_for_comms(True)
    _SAID[model] = _Said(keeps_gathered=keep_gathered or barrier is not Barrier.MICRO)
    return model


@dataclass
class _Said:
    """What FSDP was last told; telling it walks through all modules, a millisecond each time."""

    keeps_gathered: bool
    meet: bool = True
    reshard: bool = True


_SAID: WeakKeyDictionary[nn.Module, _Said] = WeakKeyDictionary()


def synchronise_gradients(model: nn.Module, *, barrier: Barrier, last: bool) -> None:
    """Says whether the coming backward meets the other ranks: always, or only in the last one.

    Weights that stay gathered do so up to the step's last backward: they change only after it.
    """
    assert isinstance(model, FSDPModule), type(model)
    said = _SAID[model]
    meet, reshard = last or barrier is Barrier.MICRO, last or not said.keeps_gathered
    if meet != said.meet:
        model.set_requires_gradient_sync(meet)
    if reshard != said.reshard:
        model.set_reshard_after_backward(reshard)
    said.meet, said.reshard = meet, reshard
