"""Plans of another number of ranks take over in the middle: nothing is lost, nothing done twice."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbcore.config.schema import Config
from sbcore.config.stages import plan_stage
from sbcore.plan import bench
from sbcore.plan.planner import plan_variant
from sbcore.plan.read import PlanFile
from sbcore.plan.sampling import sampling_digest

PlanOf = Callable[..., PlanFile]


@pytest.fixture(scope="module")
def plan_of(tmp_path_factory: pytest.TempPathFactory) -> PlanOf:
    """Plans of 50 samples, with sections of the configuration changed."""
    folder = tmp_path_factory.mktemp("elastic")
    bench._write_index(folder / "index.parquet", 50)
    bench._write_profile(folder / "profile")

    def make(balancer: str = "sab", seed: int = 0, **sections: dict[str, object]) -> PlanFile:
        values: dict[str, dict[str, object]] = {
            "attention": {"block_size": 256, "top_k": 32},
            "topology": {"max_tokens": 65536},
            "variants": {"baseline": {"balancer": {"kind": balancer}}},
        }
        for name, changed in sections.items():
            values[name] = values.get(name, {}) | changed
        config = Config.model_validate(values | {"seed": seed})
        out = folder / f"plan{len(list(folder.iterdir()))}"
        made_for = {"index": folder / "index.parquet", "latency": folder / "profile"}
        plan_variant(plan_stage(config, "baseline"), out=out, **made_for)
        return PlanFile(out / "plan.parquet", index=made_for["index"])

    return make


@pytest.fixture(scope="module")
def two_epochs(plan_of: PlanOf) -> dict[int, PlanFile]:
    sampling = {"global_batch": 8, "num_epochs": 2}
    return {n: plan_of(topology={"num_ranks": n}, sampling=sampling) for n in (1, 2)}


@settings(deadline=None)
@given(changes=st.tuples(st.integers(0, 14), st.integers(0, 14)).map(sorted))
def test_every_sample_once_per_epoch_while_ranks_come_and_go(
    two_epochs: dict[int, PlanFile], changes: list[int]
) -> None:
    seen: list[int] = []
    for step in range(14):
        ranks = 1 if changes[0] <= step < changes[1] else 2
        plan = two_epochs[ranks].step(step)
        assert plan.batch.num_ranks == ranks
        done = [plan.sample_ids[i] for rank in plan.batch.micro_batches for p in rank for i in p]
        seen += map(int, done)
        if step == 6:
            assert Counter(seen) == Counter(range(50))
    assert Counter(seen) == Counter(dict.fromkeys(range(50), 2))


def test_the_digest_names_the_batches_and_nothing_else(plan_of: PlanOf) -> None:
    known = plan_of().order_digest
    same = [
        plan_of(topology={"num_ranks": 5}),
        plan_of(topology={"barrier": "micro", "max_tokens": 9000}),
        plan_of("random"),
        plan_of("length", attention={"top_k": 8}),
    ]
    assert {plan.order_digest for plan in same} == {known}
    others = [
        plan_of(seed=1),
        plan_of(sampling={"global_batch": 8}),
        plan_of(sampling={"num_epochs": 2}),
        plan_of(sampling={"max_steps": 3}),
    ]
    assert len({known, *(plan.order_digest for plan in others)}) == 5


def test_a_digest_can_be_made_from_the_steps_of_a_plan(plan_of: PlanOf) -> None:
    plan = plan_of()
    steps = [plan.step(number).sample_ids for number in range(plan.num_steps)]
    assert sampling_digest(steps) == plan.order_digest
    assert sampling_digest(reversed(steps)) != plan.order_digest
