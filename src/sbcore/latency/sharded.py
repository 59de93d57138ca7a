"""The floor as training pays it: under FSDP2, whose hooks cost host time in every micro-batch.

One process suffices, since collectives are not part of the floor: with gradients kept on the rank
a micro-batch has none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def sharded_alone(model: "PreTrainedModel", device: torch.device) -> Iterator[None]:
    """Shards the model, layer by layer as in training, over this process; it stays sharded."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        mesh = init_device_mesh(device.type, (1,))
        for part in (*model.model.layers, model):
            fully_shard(part, mesh=mesh, reshard_after_forward=False)
        model.set_requires_gradient_sync(False)
        model.set_reshard_after_backward(False)
        yield
    finally:
        dist.destroy_process_group()
