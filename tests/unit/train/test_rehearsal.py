"""How often the largest micro-batch is run before the first step."""

from types import SimpleNamespace

from sbcore.train.rehearsal import _repeats
from sbcore.types import Barrier


def repeats(barrier, num_micro_batches):
    topology, packs = SimpleNamespace(barrier=barrier), ((0,),) * num_micro_batches
    trainer = SimpleNamespace(
        stage=SimpleNamespace(topology=topology), ranks=SimpleNamespace(rank=1)
    )
    plan = SimpleNamespace(batch=SimpleNamespace(micro_batches=(((0,),), packs)))
    return _repeats(trainer, plan)


def test_the_largest_runs_beside_gradients_where_they_wait_for_the_end_of_the_step():
    assert (repeats(Barrier.STEP, 3), repeats(Barrier.STEP, 1)) == (2, 1)
    assert (repeats(Barrier.MICRO, 3), repeats(Barrier.MICRO, 1)) == (1, 1)
