"""The largest micro-batches, run before the rounds: what does not fit fails in the first minute.

They also compile the kernels of both kinds of attention, so that no round pays for it.
"""

from collections.abc import Iterable

from sbcore.train.loop import Trainer
from sbcore.train.memory import largest_micro_batch
from sbcore.train.rehearsal import rehearse


def rehearse_largest(trainers: Iterable[Trainer]) -> None:
    """Runs the largest micro-batch of each kind of attention, tuned if any is; all ranks call it.

    Raises:
        MicroBatchTooLarge: It did not fit on this rank.
    """
    chosen: dict[str, Trainer] = {}
    for trainer in trainers:
        kind = trainer.stage.kind
        if kind not in chosen or _rank(trainer) > _rank(chosen[kind]):
            chosen[kind] = trainer
    for trainer in chosen.values():
        rehearse(trainer)


def _rank(trainer: Trainer) -> tuple[int, bool]:
    """Returns what a trainer is chosen by: tokens of its largest micro-batch, then tuning."""
    plan = trainer.inputs.plan
    step, rank, m = largest_micro_batch(plan, float)
    there = plan.step(step)
    tokens = int(there.lengths[list(there.batch.micro_batches[rank][m])].sum())
    return tokens, trainer.stage.tuner.kind != "fixed"
