"""Attention of every row to its own block: one batched product over all blocks of the pack.

Shapes: H query heads, G key heads, J query heads per key head, B blocks, C tokens in a block,
D head dim. Queries come multiplied by the scale.
"""

import torch


def attend_own(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns over the own block: sums of values [H, B, C, D], tops and totals [H, B, C].

    Each row's weights are relative to the top, its largest logit; the total is their sum.
    """
    logits = _causal_logits(q, k)  # [G, J, B, C, C]
    top = logits.amax(dim=-1, keepdim=True)
    weights = logits.sub_(top).exp_()
    total = weights.sum(dim=-1)
    return (weights @ v[:, None]).view_as(q), top.view(q.shape[:3]), total.view(q.shape[:3])


def own_gradients(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    grad_out: torch.Tensor,
    lse: torch.Tensor,
    delta: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns what own blocks add to the gradients of the scaled q, of k and of v.

    lse and delta [H, B, C] belong to the whole row: log-sum-exp over all its keys, and the sum
    of grad_out * out over the head dim (FlashAttention-2, arXiv 2307.08691, algorithm 2).
    """
    grouped = (k.shape[0], -1, *q.shape[1:])
    queries, grads = q.view(grouped), grad_out.view(grouped)
    weights = _causal_logits(q, k)
    weights = weights.sub_(lse.view(weights.shape[:-1])[..., None]).exp_()
    grad_logits = grads @ v[:, None].mT
    grad_logits = grad_logits.sub_(delta.view(weights.shape[:-1])[..., None]).mul_(weights)
    grad_v = (weights.mT @ grads).sum(dim=1)
    grad_k = (grad_logits.mT @ queries).sum(dim=1)
    return (grad_logits @ k[:, None]).view_as(q), grad_k, grad_v


def _causal_logits(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    logits = q.view(k.shape[0], -1, *q.shape[1:]) @ k[:, None].mT
    size = k.shape[2]
    later = torch.ones(size, size, dtype=torch.bool, device=k.device).triu_(1)
    return logits.masked_fill_(later, -torch.inf)
