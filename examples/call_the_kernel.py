"""Calls the attention without a model: three packed sequences, each with a budget of its own.

    python examples/call_the_kernel.py

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences. Runs on a CPU; give
the tensors a GPU as their device, and the Triton backend is chosen.
"""

from functools import partial

import torch

from sbkernels import coverage_curve, moba_attention

LENGTHS, BLOCK_SIZE = (700, 300, 90), 32
NUM_HEADS, NUM_KEY_HEADS, HEAD_DIM = 4, 2, 16


def main() -> None:
    """Prints what budgets keep and how far the output is from full attention."""
    torch.manual_seed(0)
    num_tokens = sum(LENGTHS)
    q = torch.randn(num_tokens, NUM_HEADS, HEAD_DIM, requires_grad=True)  # [T, H, D]
    k = torch.randn(num_tokens, NUM_KEY_HEADS, HEAD_DIM, requires_grad=True)  # [T, G, D]
    v = torch.randn(num_tokens, NUM_KEY_HEADS, HEAD_DIM, requires_grad=True)
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)  # [N+1]
    longest, ladder = max(LENGTHS), [1, 2, 4, 8, 16, 32]
    with torch.no_grad():
        curves = coverage_curve(
            q, k, cu_seqlens, block_size=BLOCK_SIZE, max_seqlen=longest, ladder=ladder
        )
    for length, curve in zip(LENGTHS, curves.tolist(), strict=True):
        points = ", ".join(f"{top_k}: {c:.2f}" for top_k, c in zip(ladder, curve, strict=True))
        print(f"{length:4} tokens, coverage by top_k: {points}")

    # Budgets are data: another tensor next step, no recompilation.
    top_k = torch.tensor([4, 8, 3], dtype=torch.int32)  # [N]
    attend = partial(moba_attention, q, k, v, cu_seqlens, block_size=BLOCK_SIZE, max_seqlen=longest)
    out, dense = attend(top_k=top_k), attend(top_k=longest)
    difference = (out - dense).detach().norm() / dense.detach().norm()
    print(f"output {tuple(out.shape)}, {100 * difference:.0f} % away from full attention")
    gradients = torch.autograd.grad(out.square().sum(), (q, k, v))
    print(f"norms of the gradients of q, k, v: {[round(x.norm().item()) for x in gradients]}")


if __name__ == "__main__":
    main()
