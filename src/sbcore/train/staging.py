"""The tensors of a checkpoint, and their copy on the host that is written while training goes on.

On a GPU the copies run on a stream of their own beside the next forward and backward; only the
next optimizer step waits for them, on the device, so the host never stops. The host keeps one
page-locked copy of this rank's part of weights and moments.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.tensor import DTensor

_WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")
"""Parts of a parameter's name that wrappers add: recomputation and compilation may change."""


def training_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Returns the trained weights and the optimizer's moments and step counts by name.

    They are the tensors themselves, not copies. Frozen weights are left out: they come from the
    start model. So are the optimizer's settings, which come from the configuration.
    """
    names: dict[torch.Tensor, str] = {p: _plain(name) for name, p in model.named_parameters()}
    tensors = {f"model.{name}": p.detach() for p, name in names.items() if p.requires_grad}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            tensors[f"optimizer.{names[parameter]}.{key}"] = value
    return tensors


def make_moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Makes the optimizer's moments if there are none: zeros, no step counted."""
    if optimizer.state:
        return
    get_optimizer_state_dict(model, optimizer)  # steps with zero gradients and rate
    for state in optimizer.state.values():
        state["step"].zero_()


def _plain(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


class HostCopy:
    """Reused host memory with the newest staged tensors."""

    def __init__(self, device: torch.device, optimizer: torch.optim.Optimizer) -> None:
        self._buffers: dict[str, torch.Tensor] = {}
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._copied = torch.cuda.Event() if device.type == "cuda" else None
        # Weights and moments must not change under the copy, whoever calls the optimizer.
        optimizer.register_step_pre_hook(lambda *_: self._hold_update())

    def stage(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns the tensors on the host, sharded as they are; on a GPU valid after `wait`."""
        if self._stream is None or self._copied is None:
            return {name: self._copy(name, tensor) for name, tensor in tensors.items()}
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            staged = {name: self._copy(name, tensor) for name, tensor in tensors.items()}
        self._copied.record(self._stream)
        return staged

    def wait(self) -> None:
        """Waits until the staged copies hold their values; for the writing thread."""
        if self._copied is not None:
            self._copied.synchronize()

    def _hold_update(self) -> None:
        if self._copied is not None:
            torch.cuda.current_stream().wait_event(self._copied)

    def _copy(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        buffer = self._buffers.get(name)
        if buffer is None:
            buffer = torch.empty_like(local, device="cpu", pin_memory=local.is_cuda)
            self._buffers[name] = buffer
        buffer.copy_(local, non_blocking=True)
        if isinstance(tensor, DTensor):
            # from_local would move the copy back to the mesh's device.
            return DTensor(buffer, tensor._spec, requires_grad=False)
        return buffer
