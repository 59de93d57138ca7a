"""Random weights that do not depend on how the model is spread over ranks.

Values are drawn in chunks of rows, each from a seed made of the run's seed, the weight's name and
the chunk, so a rank draws what it holds and little more. CPUs and GPUs draw different values.
"""

import hashlib
from collections.abc import Callable

import torch
from torch import nn

from sbcore.model.layers import adapter_weights, base_weights
from sbcore.model.own_part import held_here, own_part

_CHUNK_VALUES = 2**22
"""Values drawn at once, 16 MiB. Another number gives other weights."""

Draw = Callable[[torch.Tensor, torch.Generator], None]
"""Fills a float32 tensor [rows, ...] from the generator."""


def random_weights(model: nn.Module, *, seed: int) -> None:
    """Fills the model's own weights as its library does: normal matrices, norms one, biases zero.

    Every rank calls it; the standard deviation is the config's ``initializer_range``.
    """
    deviation = float(model.config.initializer_range)  # type: ignore[union-attr, arg-type]

    def normal(values: torch.Tensor, generator: torch.Generator) -> None:
        values.normal_(0.0, deviation, generator=generator)

    for name, weight in base_weights(model).items():
        if weight.ndim > 1:
            _fill(weight, name, normal, seed=seed)
        else:
            held_here(weight).fill_(0.0 if name.endswith("bias") else 1.0)


def random_adapters(model: nn.Module, *, seed: int) -> None:
    """Fills the adapters as peft does: A uniform within 1 / sqrt(inputs), B zero."""
    for name, weight in adapter_weights(model).items():
        if ".lora_B." in name:
            held_here(weight).zero_()
        else:
            _fill(weight, name, _uniform(float(weight.shape[1]) ** -0.5), seed=seed)


def _uniform(bound: float) -> Draw:
    def draw(values: torch.Tensor, generator: torch.Generator) -> None:
        values.uniform_(-bound, bound, generator=generator)

    return draw


def _fill(weight: torch.Tensor, name: str, draw: Draw, *, seed: int) -> None:
    """Draws this rank's rows of the weight; whole chunks, of which the rows are cut out."""
    target, (rows, *columns) = held_here(weight), own_part(weight)
    if target.numel() == 0:
        return
    height, width = weight.shape[0], weight[:1].numel()
    step = max(_CHUNK_VALUES // width, 1)
    for start in range(rows.start // step * step, rows.stop, step):
        stop = min(start + step, height)
        values = torch.empty(stop - start, *weight.shape[1:], device=target.device)
        draw(values, _generator(target.device, seed, name, start))
        first, last = max(start, rows.start), min(stop, rows.stop)
        cut = values[first - start : last - start]
        target[first - rows.start : last - rows.start].copy_(cut[(slice(None), *columns)])


def _generator(device: torch.device, *words: object) -> torch.Generator:
    digest = hashlib.sha256(" ".join(map(str, words)).encode()).digest()
    generator = torch.Generator(device)
    generator.manual_seed(int.from_bytes(digest[:8]) >> 1)
    return generator
