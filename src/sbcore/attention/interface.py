"""Registers the attention with transformers, so that any Qwen2, Qwen3 or Llama model uses it.

B rows, T tokens of a row, H query heads, G key heads, D head dim. Both registries are needed:
without a mask function the library hands every layer no mask at all, silently.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from sbcore.attention.call import AttentionCall, FixedBudgets
from sbcore.attention.dense import dense_attention
from sbcore.errors import SparseBalanceError
from sbkernels import BlockSelection, moba_attention, select_blocks
from sbkernels.moba.backends import Unsupported

ATTENTION_NAME = "sparsebalance"
# A call of the library for each sequence keeps the host busy for 0.4 ms, forward and backward: as
# long as an H100 works on 4K tokens. A pack of 64 x 1K takes 24 ms that way and 4.4 in one call of
# our kernels, one of 8 x 8K takes 16 against 21 (kernels/bench/results/h100.csv).
MIN_MEAN_TOKENS = 4096
MAX_SHORT_SEQUENCES = 2


def register_attention() -> None:
    """Makes ``attn_implementation="sparsebalance"`` known; needed once in each process."""
    AttentionInterface.register(ATTENTION_NAME, torch.compiler.disable(_attend))
    AttentionMaskInterface.register(ATTENTION_NAME, _no_mask)


def _no_mask(*_: Any, attention_mask: torch.Tensor | None = None, **__: Any) -> None:
    """Refuses padding: causality and boundaries come with the call, not from a mask."""
    if attention_mask is not None and not bool(attention_mask.all()):
        raise ValueError(
            f"attention_mask: has padding, shape {tuple(attention_mask.shape)}: "
            f"{ATTENTION_NAME} takes packed sequences. pack the rows or pass one row at a time."
        )


def _attend(
    module: Any,
    query: torch.Tensor,  # [B, H, T, D]
    key: torch.Tensor,  # [B, G, S, D]
    value: torch.Tensor,  # [B, G, S, D]
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sb_call: AttentionCall | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Returns the output [B, T, H, D] for the library."""
    if query.shape[2] < key.shape[2]:
        return _decode(query, key, value, scaling), None
    call = sb_call if sb_call is not None else _call_of_rows(module, query)
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    out = attend_layer(module.layer_idx, q, k, v, call=call, scale=scaling)
    return out.unflatten(0, (query.shape[0], query.shape[2])), None


def attend_layer(
    layer: int,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    call: AttentionCall,
    scale: float | None,
) -> torch.Tensor:
    """Returns the attention of a layer, [T, H, D], of q [T, H, D] over k and v [T, G, D].

    ``scale`` None means D**-0.5. Strides are free as long as D is dense.
    """
    selection = call.choices.pop(layer, None)
    if selection is None:
        selection = _choose(layer, q, k, call)
    if selection is None:
        return dense_attention(q, k, v, call.lengths, scale=scale)
    # The kernels want both dense, in the forward pass and again in the backward one.
    return moba_attention(
        q,
        k.contiguous(),
        v.contiguous(),
        call.cu_seqlens,
        selection.top_k,
        block_size=call.block_size,
        max_seqlen=call.max_seqlen,
        scale=scale,
        selection=selection,
        backend=call.backend,
    )


@torch.no_grad()
def _choose(
    layer: int, q: torch.Tensor, k: torch.Tensor, call: AttentionCall
) -> BlockSelection | None:
    """Returns the layer's blocks, None for dense attention; keeps them for a recomputation."""
    if call.budgets is None:
        return None
    means = None
    if call.key_blocks is not None and not call.covers_all:
        means = call.key_blocks.means(k)
    top_k = call.budgets.top_k(layer, q, k, call, means=means)
    least, most = call.top_k_range
    if top_k is None or call.covers_all:
        if not _suits_one_call(q, call):
            return None
        if top_k is None:
            top_k, least, most = call.all_blocks, call.max_num_blocks, call.max_num_blocks
    try:
        selection = select_blocks(
            q,
            k,
            call.cu_seqlens,
            top_k,
            block_size=call.block_size,
            max_seqlen=call.max_seqlen,
            min_top_k=least,
            max_top_k=most,
            means=means,
            backend=call.backend,
        )
    except Unsupported as error:
        raise _in_words(error, call) from None
    if call.keep_choices:
        call.choices[layer] = selection
    return selection


def _in_words(error: Unsupported, call: AttentionCall) -> SparseBalanceError:
    """Returns what to say of a setting that the kernels do not take."""
    return SparseBalanceError(
        f"attention.block_size = {call.block_size}, attention.backend = {call.backend}: {error} "
        "change one of the two, or topology.device."
    )


def _suits_one_call(q: torch.Tensor, call: AttentionCall) -> bool:
    """Returns whether our kernels, all blocks chosen, do a covered pack."""
    if call.backend == "reference":  # what is compared with must be computed as it says
        return True
    return q.is_cuda and not suit_one_by_one(call.lengths)


def suit_one_by_one(lengths: tuple[int, ...]) -> bool:
    """Returns whether dense attention shall be a library call for each sequence of a pack."""
    few = len(lengths) <= MAX_SHORT_SEQUENCES
    return few or sum(lengths) >= MIN_MEAN_TOKENS * len(lengths)


def _call_of_rows(module: Any, query: torch.Tensor) -> AttentionCall:
    """Returns the call of unpacked rows (generation), with the budget in the model's config."""
    batch, _, tokens, _ = query.shape
    settings = module.config.sparsebalance
    ends = torch.arange(batch + 1, dtype=torch.int32, device=query.device) * tokens
    top_k = settings["top_k"]
    budgets = None if top_k is None else FixedBudgets.of(top_k, batch, query.device)
    return AttentionCall(
        cu_seqlens=ends,
        lengths=(tokens,) * batch,
        block_size=settings["block_size"],
        backend=settings["backend"],
        budgets=budgets,
    )


def _decode(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
) -> torch.Tensor:
    """Returns dense attention of the newest token over the cache: prefill sparse, decode dense."""
    if query.shape[2] != 1:
        raise ValueError(
            f"query: {query.shape[2]} tokens after a cache of {key.shape[2] - query.shape[2]}: "
            "only one token at a time is decoded. prefill the whole prompt in one call."
        )
    out = scaled_dot_product_attention(
        query, key, value, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.transpose(1, 2)
