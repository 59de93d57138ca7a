"""The largest micro-batches and one of each size, run before the rounds.

What does not fit fails in the first minute. And kernels of all kinds of attention are compiled
then, so that no round pays for it.
"""

from collections.abc import Iterable

from sbcore.train.loop import Trainer
from sbcore.train.memory import largest_micro_batch
from sbcore.train.rehearsal import rehearse


def rehearse_kinds(trainers: Iterable[Trainer]) -> None:
    """Rehearses each kind of attention, with fixed and with tuned budgets; all ranks call it.

    Raises:
        MicroBatchTooLarge: It did not fit on this rank.
    """
    chosen: dict[tuple[str, bool], Trainer] = {}
    for trainer in trainers:
        kind = trainer.stage.kind, trainer.stage.tuner.kind != "fixed"
        if kind not in chosen or _num_tokens(trainer) > _num_tokens(chosen[kind]):
            chosen[kind] = trainer
    for trainer in chosen.values():
        rehearse(trainer)


def _num_tokens(trainer: Trainer) -> int:
    """Returns the tokens of a trainer's largest micro-batch."""
    plan = trainer.inputs.plan
    step, rank, m = largest_micro_batch(plan, float)
    there = plan.step(step)
    return int(there.lengths[list(there.batch.micro_batches[rank][m])].sum())
