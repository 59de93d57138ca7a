"""Activation checkpointing: which layers run their forward again in the backward pass, and when.

Short micro-batches keep their activations: recomputing them saves no memory that is short, and its
launches are what a short micro-batch costs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from sbcore.model.feed_forward import result_unused

Mode = Literal["none", "full", "selective"]


class Recompute:
    """Switches recomputation of the layers on and off, micro-batch by micro-batch.

    ``full`` keeps only a layer's input; ``selective`` keeps what attention returned too, so that
    only the cheap parts run twice. Neither computes the layer's last product again. A recomputed
    layer must attend to the blocks of its first run: `AttentionCall.keep_choices` sees to that.
    """

    def __init__(self, layers: Sequence[nn.Module], mode: Mode, *, above_tokens: int) -> None:
        self.mode, self.above_tokens, self.active = mode, above_tokens, False
        if mode == "none":
            return
        # Keeping the generators' state for each layer costs a short micro-batch milliseconds.
        how: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": _draw(layers)}
        how["context_fn"] = _keep_what_attention_returned if mode == "selective" else _keep_nothing
        for layer in layers:
            layer.forward = partial(self._run, layer.forward, how)

    def prepare(self, num_tokens: int) -> bool:
        """Returns whether the coming micro-batch is recomputed, and sees that it is."""
        self.active = self.applies(num_tokens)
        return self.active

    def applies(self, num_tokens: int) -> bool:
        """Returns whether a micro-batch of so many tokens is recomputed."""
        return self.mode != "none" and num_tokens > self.above_tokens

    def _run(
        self, forward: Callable[..., Any], how: dict[str, Any], *args: Any, **words: Any
    ) -> Any:
        if not self.active or not torch.is_grad_enabled():
            return forward(*args, **words)
        return checkpoint(forward, *args, **how, **words)


def _draw(layers: Sequence[nn.Module]) -> bool:
    """Returns whether the layers' forward draws random numbers: only dropout of adapters does."""
    parts = (part for layer in layers for part in layer.modules())
    return any(isinstance(part, nn.Dropout) and part.p > 0 for part in parts)


Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]
"""What a layer's first run and its second one stand in."""


def _keep_nothing() -> Contexts:
    return nullcontext(), result_unused()


def _keep_what_attention_returned() -> Contexts:
    first, second = create_selective_checkpoint_contexts(_policy)
    return first, _both(second, result_unused())


@contextmanager
def _both(one: AbstractContextManager[Any], other: AbstractContextManager[Any]) -> Iterator[None]:
    with one, other:
        yield


def _policy(_: Any, op: Any, *args: Any, **words: Any) -> CheckpointPolicy:
    """Returns what happens to an operator's result: attention's is kept, choices are elsewhere."""
    name = str(op)
    keep = "attention" in name or ("sbkernels" in name and "forward" in name)
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE
