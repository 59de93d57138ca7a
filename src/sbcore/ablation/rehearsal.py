"""The largest micro-batches and one of each size, run before the rounds of a setting.

What does not fit fails in the first minute. And kernels of all kinds of attention are compiled
then, so that no round pays for it. Settings share a model: only what is new in a later one is run.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sbcore.train.loop import Trainer
from sbcore.train.memory import largest_micro_batch
from sbcore.train.rehearsal import rehearse
from sbcore.train.sizes import one_of_each_size

Kind = tuple[str, bool]
"""Sparse or dense, and whether budgets are tuned."""


@dataclass
class Rehearsals:
    """What a model has been through, by kind of attention and of budgets."""

    _sizes: dict[Kind, set[int]] = field(default_factory=dict)
    _reach: dict[Kind, int] = field(default_factory=dict)

    def run(self, trainers: Iterable[Trainer]) -> None:
        """Rehearses each kind as far as it is new; all ranks call it.

        Raises:
            MicroBatchTooLarge: It did not fit on this rank.
        """
        for kind, trainer in _one_of_each_kind(trainers).items():
            sizes, known = set(one_of_each_size(trainer.inputs.plan)), self._sizes.get(kind, set())
            num_tokens, _ = _reach(trainer)
            if sizes <= known and num_tokens <= self._reach.get(kind, 0):
                continue
            rehearse(trainer, known_sizes=known)
            self._sizes[kind] = sizes | known
            self._reach[kind] = max(num_tokens, self._reach.get(kind, 0))


def _one_of_each_kind(trainers: Iterable[Trainer]) -> dict[Kind, Trainer]:
    """Returns the trainer of each kind whose micro-batches need most."""
    chosen: dict[Kind, Trainer] = {}
    for trainer in trainers:
        kind = trainer.stage.kind, trainer.stage.tuner.kind != "fixed"
        if kind not in chosen or _reach(trainer) > _reach(chosen[kind]):
            chosen[kind] = trainer
    return chosen


def _reach(trainer: Trainer) -> tuple[int, bool]:
    """Returns the tokens of a trainer's largest micro-batch, and whether it packs sequences.

    Of equals the one that packs is rehearsed: it meets all that the other one does.
    """
    plan = trainer.inputs.plan
    step, rank, m = largest_micro_batch(plan, float)
    there = plan.step(step)
    num_tokens = int(there.lengths[list(there.batch.micro_batches[rank][m])].sum())
    return num_tokens, trainer.stage.max_sequences != 1
