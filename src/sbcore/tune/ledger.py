"""The account of a step's budgets on its way to the host: started at once, read a step later.

L layers, n sequences of a micro-batch, K rungs of the ladder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sbcore.tune.clamp import TargetBudgets
from sbcore.types import FloatArray, IntArray


@dataclass(frozen=True)
class LedgerPart:
    """Budgets and coverage of one micro-batch; ``curves`` is None where none were measured."""

    sequences: tuple[int, ...]
    top_k_target: IntArray  # [L, n]
    top_k: IntArray  # [L, n]
    curves: FloatArray | None  # [L, n, K]


@dataclass(frozen=True)
class PendingLedger:
    """Copies under way to the host."""

    budgets: tuple[TargetBudgets, ...]
    accounts: tuple[torch.Tensor | None, ...]  # int32, on the host
    copied: torch.cuda.Event | None

    def result(self) -> list[LedgerPart]:
        """Returns the parts in the order given; waits for the copies, not for later work."""
        if self.copied is not None:
            self.copied.synchronize()
        return [
            _part(source, account)
            for source, account in zip(self.budgets, self.accounts, strict=True)
        ]


def collect(budgets: Sequence[TargetBudgets]) -> PendingLedger:
    """Returns the ledger of these micro-batches, dummies left out, after starting its copies.

    Called when their forward passes are queued: one copy per micro-batch that measured anything.
    """
    real = tuple(source for source in budgets if source.sequences)
    accounts = tuple(_to_host(source.account) for source in real)
    copied = None
    if any(source.account is not None and source.account.is_cuda for source in real):
        copied = torch.cuda.Event()
        copied.record()
    return PendingLedger(real, accounts, copied)


def _to_host(account: torch.Tensor | None) -> torch.Tensor | None:
    if account is None or not account.is_cuda:
        return account
    host = torch.empty(account.shape, dtype=account.dtype, pin_memory=True)
    return host.copy_(account, non_blocking=True)


def _part(source: TargetBudgets, account: torch.Tensor | None) -> LedgerPart:
    targets = source.targets.numpy().astype(np.int64)
    if account is None:
        return LedgerPart(source.sequences, targets, targets, curves=None)
    budgets, curves = source.views(account)
    used = targets if source.limits is None else budgets.numpy().astype(np.int64)
    return LedgerPart(source.sequences, targets, used, curves.numpy().astype(np.float64))
