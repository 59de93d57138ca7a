"""What tests and benchmarks of attention share: inputs, a plain baseline, error rules.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences, M max_num_blocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from sbkernels.moba.selection import BlockSelection

# Tokens over which a topic of correlated inputs stays the same, and what it keeps of itself after.
TOPIC_TOKENS = 16
TOPIC_PERSISTENCE = 0.98
# Roundings of float32 that the error rule forgives.
FLOAT32_ROUNDINGS = 16
FAMILIES = ("iid", "correlated")
# 4,096 x 65,536 float64 logits are 2 GiB.
ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class PackedInputs:
    """Queries, keys and values of packed sequences, with a gradient for the output.

    Attributes:
        q: [T, H, D].
        k: [T, G, D].
        v: [T, G, D].
        grad_out: [T, H, D].
        cu_seqlens: int32 [N+1].
        max_seqlen: Length of the longest sequence, tokens.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    grad_out: torch.Tensor
    cu_seqlens: torch.Tensor
    max_seqlen: int

    def to(self, dtype: torch.dtype) -> "PackedInputs":
        """Returns the same inputs with q, k, v and grad_out in another dtype."""
        return PackedInputs(
            q=self.q.to(dtype),
            k=self.k.to(dtype),
            v=self.v.to(dtype),
            grad_out=self.grad_out.to(dtype),
            cu_seqlens=self.cu_seqlens,
            max_seqlen=self.max_seqlen,
        )


def make_inputs(
    lengths: Sequence[int],
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    family: str,
    seed: int,
    dtype: torch.dtype,
    device: str,
) -> PackedInputs:
    """Returns inputs for sequences of these lengths, equal on every device for equal arguments.

    family "iid" draws all from a normal distribution: rows next to each other choose different
    blocks. "correlated" adds to q and k of a key head a topic that drifts slowly along the
    tokens: rows next to each other choose nearly the same blocks, as in trained models.
    """
    if family not in FAMILIES:
        raise ValueError(f"sbkernels: family: got {family!r}, wanted one of {', '.join(FAMILIES)}.")
    generator = torch.Generator().manual_seed(seed)
    num_tokens = sum(lengths)
    heads = (num_heads, num_kv_heads, num_kv_heads, num_heads)
    q, k, v, grad_out = (
        torch.randn(num_tokens, count, head_dim, generator=generator) for count in heads
    )
    if family == "correlated":
        topic = _drift(num_tokens, num_kv_heads, head_dim, generator)
        q += topic.repeat_interleave(num_heads // num_kv_heads, dim=1)
        k += topic
    boundaries = torch.tensor([0, *lengths]).cumsum(0)
    return PackedInputs(
        q=q.to(device, dtype),
        k=k.to(device, dtype),
        v=v.to(device, dtype),
        grad_out=grad_out.to(device, dtype),
        cu_seqlens=boundaries.to(device, torch.int32),
        max_seqlen=max(lengths),
    )


def attend_masked(
    inputs: PackedInputs, selection: BlockSelection, *, scale: float
) -> tuple[torch.Tensor, ...]:
    """Returns out, dq, dk, dv by a masked softmax over the pack, all in the inputs' dtype.

    In float64 the exact values, in a lower dtype the baseline of `assert_error_rule`. Works on
    ROWS_AT_ONCE rows of a head at a time; what they add to dk and dv is summed in float64.
    """
    num_tokens, num_heads, _ = inputs.q.shape
    group = num_heads // inputs.k.shape[1]
    allowed = _rule_of_rows(inputs.cu_seqlens, selection)
    out, dq = torch.empty_like(inputs.q), torch.empty_like(inputs.q)
    dk, dv = (torch.zeros_like(x, dtype=torch.float64) for x in (inputs.k, inputs.v))
    for head in range(num_heads):
        for start in range(0, num_tokens, ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, num_tokens)
            here, keys = (slice(start, stop), head), (slice(stop), head // group)
            q = inputs.q[here].detach().clone().requires_grad_()
            k, v = (x[keys].detach().clone().requires_grad_() for x in (inputs.k, inputs.v))
            logits = (q @ k.mT * scale).masked_fill(~allowed(head, start, stop), -torch.inf)
            got = logits.softmax(dim=-1) @ v
            grads = torch.autograd.grad(got, (q, k, v), inputs.grad_out[here])
            out[here], dq[here] = got.detach(), grads[0]
            dk[keys] += grads[1]
            dv[keys] += grads[2]
    return out, dq, dk.to(inputs.k.dtype), dv.to(inputs.v.dtype)


def assert_error_rule(
    name: str, actual: torch.Tensor, exact: torch.Tensor, baseline: torch.Tensor
) -> None:
    """Raises AssertionError if actual is more than twice as far from exact as the baseline.

    Largest absolute errors are compared (the rule of FlashAttention's tests); exact is float64.
    Always allowed, relative to its largest value: one rounding to the dtype of actual and a few
    of float32, since every fused kernel recomputes its weights from a rounded log-sum-exp (the
    library's own float32 kernel has 2.6 times the error of a plain softmax in dq).
    """
    error = (actual.double() - exact).abs()
    rounding = (
        torch.finfo(actual.dtype).eps / 2 + FLOAT32_ROUNDINGS * torch.finfo(torch.float32).eps
    )
    allowed = 2 * _largest(baseline.double() - exact) + rounding * _largest(exact)
    _assert_below(name, error, allowed, actual, exact)


def assert_close(
    name: str, actual: torch.Tensor, expected: torch.Tensor, *, tolerance: float
) -> None:
    """Raises AssertionError if they differ by more than tolerance times the largest value."""
    assert actual.shape == expected.shape, (name, actual.shape, expected.shape)
    error = (actual.double() - expected.double()).abs()
    _assert_below(name, error, tolerance * _largest(expected), actual, expected)


def _assert_below(
    name: str,
    error: torch.Tensor,
    allowed: float,
    actual: torch.Tensor,
    wanted: torch.Tensor,
) -> None:
    # Not `error > allowed`: a NaN must fail.
    wrong = ~(error <= allowed)
    if not wrong.any():
        return
    first = tuple(wrong.nonzero()[0].tolist())
    raise AssertionError(
        f"{name} {tuple(actual.shape)}: {int(wrong.sum())} of {wrong.numel()} values are off by "
        f"more than {allowed:.3g} (largest {float(error.max()):.3g}); the first at {first}: "
        f"got {float(actual[first]):.6g}, wanted {float(wanted[first]):.6g}"
    )


def _largest(values: torch.Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _rule_of_rows(
    cu_seqlens: torch.Tensor, selection: BlockSelection
) -> Callable[[int, int, int], torch.Tensor]:
    """Returns a function of (head, first row, last + 1): which keys up to there they may see.

    It returns bool [rows, last + 1].
    """
    member = selection.membership()  # [H, T, M]
    token = torch.arange(member.shape[1], device=cu_seqlens.device)
    sequence = torch.bucketize(token, cu_seqlens[1:], right=True)
    block = (token - cu_seqlens[sequence]) // selection.block_size

    def allowed(head: int, start: int, stop: int) -> torch.Tensor:
        rows = slice(start, stop)
        visible = (sequence[rows, None] == sequence[:stop]) & (token[rows, None] >= token[:stop])
        return visible & member[head, rows][:, block[:stop]]

    return allowed


def _drift(
    num_tokens: int, num_kv_heads: int, head_dim: int, generator: torch.Generator
) -> torch.Tensor:
    """Returns [T, G, D]: a stationary random walk of unit variance, constant for some tokens."""
    num_topics = -(-num_tokens // TOPIC_TOKENS)
    steps = torch.randn(num_topics, num_kv_heads, head_dim, generator=generator)
    steps[1:] *= (1 - TOPIC_PERSISTENCE**2) ** 0.5
    for topic in range(1, num_topics):
        steps[topic] += TOPIC_PERSISTENCE * steps[topic - 1]
    return steps.repeat_interleave(TOPIC_TOKENS, dim=0)[:num_tokens]
