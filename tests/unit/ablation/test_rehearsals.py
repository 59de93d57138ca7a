"""What of a later setting is rehearsed: what the ones before did not meet."""

from types import SimpleNamespace

import numpy as np
import pytest

from sbcore.ablation import rehearsal
from sbcore.plan.read import StepPlan
from sbcore.types import BatchPlan


@pytest.fixture
def ran(monkeypatch):
    """The variants that were rehearsed, and the sizes they were told to leave out."""
    calls = []
    monkeypatch.setattr(
        rehearsal, "rehearse", lambda t, known_sizes: calls.append((t.name, sorted(known_sizes)))
    )
    return calls


def trainer(name, lengths, *, kind="sparse", tuner="fixed", max_sequences=0):
    """Packs all sequences, or takes one at a time."""
    everyone = tuple(range(len(lengths)))
    packs = tuple((i,) for i in everyone) if max_sequences == 1 else (everyone,)
    plan = StepPlan(np.array(everyone), np.array(lengths), BatchPlan((packs,)))
    return SimpleNamespace(
        name=name,
        inputs=SimpleNamespace(plan=SimpleNamespace(num_steps=1, step=lambda _: plan)),
        stage=SimpleNamespace(
            kind=kind, tuner=SimpleNamespace(kind=tuner), max_sequences=max_sequences
        ),
    )


def test_each_kind_once_and_of_equals_the_one_that_packs(ran):
    one = {"max_sequences": 1}
    trainers = [trainer("alone", [64], **one), trainer("packed", [64])]
    trainers += [trainer("tuned", [64], tuner="anchor"), trainer("dense", [64], kind="dense")]
    rehearsal.Rehearsals().run(trainers)
    assert ran == [("packed", []), ("tuned", []), ("dense", [])]


def test_a_later_setting_runs_new_sizes_and_larger_micro_batches_alone(ran):
    rehearsals = rehearsal.Rehearsals()
    for name, lengths in (
        ("first", [60, 100]),
        ("same sizes", [64, 90]),
        ("new size", [20, 60]),
        ("larger", [64, 100]),
        ("known by now", [20, 64]),
    ):
        rehearsals.run([trainer(name, lengths)])
    assert ran == [("first", []), ("new size", [6, 7]), ("larger", [5, 6, 7])]
