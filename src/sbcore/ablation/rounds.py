"""Rounds: every variant takes one step on the same global batch, in an order drawn anew."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from sbcore.ablation.steps import MeasuredStep, measured_step


class OverStep(Protocol):
    """A step that is over."""

    @property
    def row(self) -> dict[str, Any]:
        """Its row of metrics, as `sbcore.train` makes it."""
        ...


class StepTrainer(Protocol):
    """One variant's trainer; reports are read a step late, so that the host never waits."""

    def run_step(self, step: int) -> OverStep | None:
        """Launches a step; returns this trainer's step before it, if there was one."""
        ...

    def drain(self) -> OverStep | None:
        """Waits for the last step and returns it."""
        ...


def order_of(variants: Sequence[str], *, seed: int, number: int) -> list[str]:
    """Returns the variants in the order of a round; equal on all ranks."""
    order = np.random.default_rng([seed, number]).permutation(len(variants))
    return [variants[i] for i in order]


def run_rounds(
    trainers: Mapping[str, StepTrainer],
    numbers: Sequence[int],
    *,
    num_warmup: int,
    seed: int,
    may_begin: Callable[[], bool],
    note: Callable[[Sequence[MeasuredStep]], None],
) -> list[MeasuredStep]:
    """Runs the rounds of these numbers while they may begin; returns all steps, warm-up included.

    ``may_begin`` must answer alike on all ranks, since collectives hang otherwise. ``note`` is told
    of each round's rows, which are those of the round before.
    """
    steps: list[MeasuredStep] = []

    def add(over: Mapping[str, OverStep | None]) -> None:
        rows = [(name, step.row) for name, step in over.items() if step is not None]
        measured = numbers[num_warmup:]
        new = [measured_step(name, row, measured=row["step"] in measured) for name, row in rows]
        steps.extend(new)
        note(new)

    for number in numbers:
        if not may_begin():
            break
        order = order_of(list(trainers), seed=seed, number=number)
        add({name: trainers[name].run_step(number) for name in order})
    add({name: trainer.drain() for name, trainer in trainers.items()})
    names = list(trainers)
    return sorted(steps, key=lambda step: (step.round, names.index(step.variant)))
