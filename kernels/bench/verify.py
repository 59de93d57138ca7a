"""Whether what is timed is right: the error rule against float64, before any speed."""

import torch
from gather_peer import gather_call
from inputs import draw
from own_calls import attend_and_grad
from settings import Setting

from sbkernels import select_blocks
from sbkernels.moba.selection import BlockSelection
from sbkernels.testing import FAMILIES, PackedInputs, assert_error_rule, attend_masked


def verify(setting: Setting) -> None:
    """Raises AssertionError unless out, dq, dk, dv obey the error rule on a short pack."""
    for family in FAMILIES:
        inputs = draw(setting, (1500, 0, 1, 1100), family)
        top_k = 3
        options = {"block_size": setting.block_size, "max_seqlen": inputs.max_seqlen}
        selection = select_blocks(inputs.q, inputs.k, inputs.cu_seqlens, top_k, **options)
        _assert_rule(inputs, selection, attend_and_grad(inputs, top_k, **options))


def gather_is_right(setting: Setting) -> bool:
    """Returns whether the gathering peer runs here and obeys the error rule on 2,048 tokens."""
    inputs = draw(setting, (2048,), "iid")
    options = {"block_size": setting.block_size, "max_seqlen": inputs.max_seqlen}
    selection = select_blocks(inputs.q, inputs.k, inputs.cu_seqlens, 3, **options)
    try:
        _assert_rule(inputs, selection, gather_call(inputs, selection, backward=True)())
    except (AssertionError, RuntimeError, TypeError) as error:
        print(f"gather, not timed: {error}"[:300], flush=True)
        return False
    return True


def _assert_rule(
    inputs: PackedInputs, selection: BlockSelection, got: tuple[torch.Tensor, ...]
) -> None:
    scale = inputs.q.shape[2] ** -0.5
    exact = attend_masked(inputs.to(torch.float64), selection, scale=scale)
    plain = attend_masked(inputs, selection, scale=scale)
    for name, ours, true, baseline in zip(
        ("out", "dq", "dk", "dv"), got, exact, plain, strict=True
    ):
        assert_error_rule(name, ours, true, baseline)
