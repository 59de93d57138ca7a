"""One optimizer step: the rank's micro-batches forward and backward, then the update."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from sbcore.attention.call import AttentionCall
from sbcore.config.compute import AttentionConfig
from sbcore.model.recompute import Recompute
from sbcore.model.shard import synchronise_gradients
from sbcore.train.batches import PackedBatch
from sbcore.train.clock import Clock
from sbcore.train.faults import finite_guard
from sbcore.tune.clamp import TargetBudgets
from sbcore.types import Barrier
from sbkernels.moba.dense import prefer_fastest_dense


@dataclass(frozen=True)
class Work:
    """What a rank does in one step."""

    batches: Sequence[PackedBatch]
    budgets: Sequence[TargetBudgets]
    num_target_tokens: int  # of the global batch, all ranks


def run_micro_batches(
    model: nn.Module,
    work: Work,
    *,
    attention: AttentionConfig,
    barrier: Barrier,
    recompute: Recompute,
    clock: Clock,
) -> torch.Tensor:
    """Returns this rank's share of the mean loss; gradients are left summed over ranks."""
    total = torch.zeros((), device=work.batches[0].input_ids.device)
    for m, (batch, budgets) in enumerate(zip(work.batches, work.budgets, strict=True)):
        synchronise_gradients(model, barrier=barrier, last=m == len(work.batches) - 1)
        call = AttentionCall(
            cu_seqlens=batch.cu_seqlens,
            lengths=batch.lengths,
            block_size=attention.block_size,
            backend=attention.backend,
            budgets=budgets,
            keep_choices=recompute.prepare(batch.num_tokens),
        )
        with clock.micro_batch(), prefer_fastest_dense():
            loss = packed_loss(model, batch, call) / work.num_target_tokens
            loss.backward()
        total += loss.detach()
    return total


def packed_loss(model: nn.Module, batch: PackedBatch, call: AttentionCall) -> torch.Tensor:
    """Returns the summed cross-entropy of the micro-batch's target tokens, float32.

    A dummy gives zero, but through the whole model, so that all ranks run the same collectives.
    """
    loss: torch.Tensor = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        predict_at=batch.predict_at,
        labels=batch.labels,
        sb_call=call,
    )
    return loss * 0.0 if batch.is_dummy else loss


def update(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, learning_rate: float, max_norm: float
) -> torch.Tensor:
    """Clips, steps and clears; returns the gradient norm before clipping, on the device.

    A norm that is not finite leaves weights and moments as they are; nobody waits to see it.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    norm = nn.utils.clip_grad_norm_(trained, max_norm)
    whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
    finite_guard(optimizer, whole)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return whole.detach()


def learning_rate_at(
    step: int, num_steps: int, *, peak: float, warmup_share: float, decay_share: float
) -> float:
    """Returns the rate of a step: linear up, flat, linear down to a fiftieth of the peak."""
    warmup, decay = warmup_share * num_steps, decay_share * num_steps
    rising = (step + 1) / max(warmup, 1.0)
    falling = (num_steps - step) / max(decay, 1.0)
    return peak * min(1.0, rising, max(falling, 0.02))
