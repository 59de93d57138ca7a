"""MoBA and its coverage by Python lists, row by row in float64: slow, and hard to get wrong.

Written apart from the package's reference, to check it. Block means are rounded to the dtype
of the keys, as the definition says; scores are exact, so compare where no two are close.
"""

import math
from collections.abc import Iterator

import torch

from sbkernels.testing import PackedInputs


def rows(inputs: PackedInputs) -> Iterator[tuple[int, int, int]]:
    """Yields for each packed token its sequence, the first token of that, and the token."""
    ends = inputs.cu_seqlens.tolist()
    for n in range(len(ends) - 1):
        for token in range(ends[n], ends[n + 1]):
            yield n, ends[n], token


def block_scores(
    inputs: PackedInputs, first: int, token: int, head: int, *, block_size: int
) -> list[float]:
    """Returns the scores of the blocks from the first up to the row's own."""
    end = min(e for e in inputs.cu_seqlens.tolist() if e > token)
    kv_head = head * inputs.k.shape[1] // inputs.q.shape[1]
    scores = []
    for start in range(first, token + 1, block_size):
        block = inputs.k[start : min(start + block_size, end), kv_head].double()
        mean = (block.sum(0) / len(block)).to(inputs.k.dtype).double()
        scores.append(float(inputs.q[token, head].double() @ mean))
    return scores


def ranked_blocks(scores: list[float]) -> list[int]:
    """Returns the blocks in rank order: the own (last) one, then the best, ties to the lower."""
    past = range(len(scores) - 1)
    return [len(scores) - 1, *sorted(past, key=lambda block: (-scores[block], block))]


def ranked(inputs: PackedInputs, *, block_size: int) -> dict[tuple[int, int], list[int]]:
    """Returns the rank order of each (head, token)."""
    return {
        (head, token): ranked_blocks(
            block_scores(inputs, first, token, head, block_size=block_size)
        )
        for _, first, token in rows(inputs)
        for head in range(inputs.q.shape[1])
    }


def attention(
    inputs: PackedInputs, top_k: list[int], *, block_size: int, scale: float
) -> torch.Tensor:
    """Returns the output [T, H, D] in float64, by picking the keys of each row one by one."""
    order = ranked(inputs, block_size=block_size)
    out = torch.zeros(inputs.q.shape, dtype=torch.float64)
    for n, first, token in rows(inputs):
        for head in range(inputs.q.shape[1]):
            kv_head = head * inputs.k.shape[1] // inputs.q.shape[1]
            keys = [
                key
                for block in order[head, token][: top_k[n]]
                for key in range(first + block * block_size, first + (block + 1) * block_size)
                if key <= token
            ]
            logits = inputs.k[keys, kv_head].double() @ inputs.q[token, head].double() * scale
            out[token, head] = logits.softmax(0) @ inputs.v[keys, kv_head].double()
    return out


def coverage(
    inputs: PackedInputs, *, block_size: int, ladder: list[int], row_stride: int
) -> torch.Tensor:
    """Returns the coverage curve [N, len(ladder)] in float64."""
    num_sequences, (_, num_heads, head_dim) = inputs.cu_seqlens.numel() - 1, inputs.q.shape
    shares: list[list[list[float]]] = [[] for _ in range(num_sequences)]
    for n, first, token in rows(inputs):
        if (token - first) % row_stride:
            continue
        for head in range(num_heads):
            scores = block_scores(inputs, first, token, head, block_size=block_size)
            mass = [math.exp((s - max(scores)) / math.sqrt(head_dim)) for s in scores]
            order = ranked_blocks(scores)
            shares[n].append([sum(mass[b] for b in order[:k]) / sum(mass) for k in ladder])
    means = [torch.tensor(s, dtype=torch.float64).mean(0) if s else None for s in shares]
    ones = torch.ones(len(ladder), dtype=torch.float64)
    return torch.stack([ones if mean is None else mean for mean in means])
