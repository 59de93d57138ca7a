"""Shows that the library's cuDNN attention keeps a backward plan across layouts of the gradient.

PYTHONPATH=src:kernels python kernels/bench/cudnn_layouts.py
prints the largest differences of dq, dk and dv, relative to their largest values, between one
gradient of the output handed in rows first and then the same one heads first. 0 is right.
"""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


def main() -> None:
    """Prints the three differences."""
    q, k, v, gradient = (
        torch.randn(1, 1024, heads, 128, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
        for heads in (16, 2, 2, 16)
    )
    inputs = [tensor.requires_grad_() for tensor in (q, k, v)]

    def gradients(of_output: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            out = scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=True)
            return torch.autograd.grad(out, inputs, of_output)

    pairs = zip(gradients(gradient), gradients(gradient.contiguous()), strict=True)
    print([round(float((a - b).abs().max() / a.abs().max()), 3) for a, b in pairs])


if __name__ == "__main__":
    main()
