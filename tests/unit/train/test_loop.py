"""What a step teaches when it is over; whole steps stand in tests/distributed."""

from types import SimpleNamespace

import numpy as np

from sbcore.plan.read import StepPlan
from sbcore.train import loop
from sbcore.train.clock import HostClock
from sbcore.train.loop import Ready, Trainer, Work
from sbcore.train.records import StepReport
from sbcore.tune.ledger import LedgerPart
from sbcore.types import BatchPlan

PLAN = StepPlan(np.arange(2), np.array([10, 20]), BatchPlan((((1,), (0,)),)))
CURVES = np.linspace(0.1, 1.0, 6).reshape(1, 2, 3)


def report():
    parts = [LedgerPart((i,), np.array([[9]]), np.array([[3 + i]]), CURVES[:, [i]]) for i in (1, 0)]
    return StepReport(0.0, 0.0, 1.0, [], {}, parts)


def test_layout_tuner_and_policy_learn_from_every_step_that_is_over(monkeypatch):
    seen = []
    tuner = SimpleNamespace(
        coverage=SimpleNamespace(ladder=np.array([1, 2, 4])),
        learn=lambda lengths, curves: seen.append(("tuner", lengths, curves)),
        review=lambda row: seen.append(("policy", row)),
    )
    layout = SimpleNamespace(learn=lambda facts: seen.append(("layout", facts)))
    ranks = SimpleNamespace(host_group=None, world_size=1)
    inputs = SimpleNamespace(latency=SimpleNamespace(num_layers=1))
    nothing = dict.fromkeys(("stage", "model", "optimizer", "recompute", "flops"))
    trainer = Trainer(
        **nothing, ranks=ranks, inputs=inputs, layout=layout, tuner=tuner, clock=HostClock()
    )
    monkeypatch.setattr(loop, "gather_reports", lambda mine, group, world_size: [mine])
    monkeypatch.setattr(Trainer, "_row", lambda self, facts, ready: {"step": facts.step})
    assert trainer.drain() is None, "nothing has run"
    trainer._pending = Ready(5, PLAN, Work([], [], 1), None), SimpleNamespace(read=report)
    finished = trainer.drain()
    assert finished.row == {"step": 5}
    (_, lengths, curves), (_, facts), policy = seen
    assert policy == ("policy", {"step": 5})
    assert lengths.tolist() == [10, 20]
    np.testing.assert_array_equal(curves, CURVES)
    assert facts is finished.facts
    assert facts.top_k.tolist() == [[3, 4]]
    assert trainer.drain() is None, "it is told once"


def test_each_step_is_updated_at_its_own_rate_as_its_row_says(monkeypatch):
    train = SimpleNamespace(learning_rate=2.0, warmup_share=0.5, decay_share=0.0, max_grad_norm=0.7)
    topology = SimpleNamespace(barrier=None)
    stage = SimpleNamespace(train=train, attention=None, topology=topology)
    inputs = SimpleNamespace(plan=SimpleNamespace(num_steps=8))
    nothing = dict.fromkeys(("model", "optimizer", "recompute", "flops", "layout", "tuner"))
    trainer = Trainer(**nothing, stage=stage, ranks=None, inputs=inputs, clock=HostClock())
    updates = []
    monkeypatch.setattr(loop, "run_micro_batches", lambda *_, **__: 1.0)
    monkeypatch.setattr(loop, "update", lambda *_, **words: updates.append(words))
    for step in range(5):
        trainer._launch(Ready(step, PLAN, Work([], [], 1), None))
    assert [words["learning_rate"] for words in updates] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert [trainer._learning_rate(step) for step in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert {words["max_norm"] for words in updates} == {0.7}
