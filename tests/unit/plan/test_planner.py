"""The stage `plan`: files, reading them back, and what is refused."""

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sbcore.config.data import SamplingConfig
from sbcore.config.load import parse_config
from sbcore.config.method import LengthBalancer, RandomBalancer, SabBalancer
from sbcore.config.stages import PlanStage
from sbcore.errors import ConfigError, SparseBalanceError
from sbcore.latency.model import TableLatencyModel
from sbcore.latency.table import HEADER, TABLE, MeasuredPoint, write_points
from sbcore.plan.planner import plan_variant
from sbcore.plan.read import PlanFile
from sbcore.plan.sampling import global_batches, steps
from sbcore.plan.summary import StepSummary, summarise_plan
from sbcore.types import Barrier

LENGTHS = np.random.default_rng(0).integers(20, 1000, size=50)


def write_index(path: Path, ids: object, lengths: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "sample_id": pa.array(ids, type=pa.int64()),
        "num_tokens": pa.array(lengths, type=pa.int32()),
    }
    pq.write_table(pa.table(columns), path)
    return path


def write_latency(folder: Path) -> Path:
    folder.mkdir()
    rows = [("floor", 32, 8, 1), ("linear", 64, 0, 1), ("linear", 1024, 0, 1)]
    for length in (64, 256, 1024):
        budgets = [k for k in (1, 4, 8) if k * 32 < length] + [length // 32]
        rows += [("attention", length, k, 1) for k in budgets]
    rows.append(("attention", 64, 2, 4))
    points = []
    for part, length, top_k, num_sequences in rows:
        ms = 1.0 + 0.01 * num_sequences * length * (1 + 0.1 * top_k)
        points.append(MeasuredPoint(part, length, top_k, num_sequences, ms, ms, ms, 3, False))
    write_points(folder / TABLE, points)
    head = {"device": "test", "block_size": 32, "num_layers": 2, "device_type": "cpu"}
    (folder / HEADER).write_text(json.dumps(head))
    return folder


def stage(**changed: object) -> PlanStage:
    known: dict[str, object] = {
        "variant": "sab",
        "seed": 0,
        "sampling": SamplingConfig(global_batch=16),
        "block_size": 32,
        "top_k": 8,
        "attention": "sparse",
        "balancer": SabBalancer(),
        "num_ranks": 2,
        "num_stages": 1,
        "speed_factors": [],
        "barrier": Barrier.STEP,
        "max_tokens": 2048,
        "max_memory_gib": None,
        "max_sequences": 0,
        "max_extrapolation": 1.0,
    }
    return PlanStage.model_validate(known | changed)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    index = write_index(tmp_path / "data" / "index.parquet", np.arange(100, 150), LENGTHS)
    return {
        "index": index,
        "latency": write_latency(tmp_path / "profile"),
        "out": tmp_path / "plan",
    }


@pytest.mark.parametrize("balancer", [RandomBalancer(), LengthBalancer(), SabBalancer()])
def test_a_plan_is_read_back_as_it_was_made(inputs: dict[str, Path], balancer: object) -> None:
    summary = plan_variant(stage(balancer=balancer), **inputs)
    plan = PlanFile(inputs["out"] / "plan.parquet", index=inputs["index"])
    assert (plan.num_steps, plan.num_ranks, plan.barrier) == (4, 2, Barrier.STEP)
    assert (plan.variant, plan.max_tokens) == ("sab", 2048)
    seen = []
    for number, told in enumerate(summary["steps"]):
        step = plan.step(number)
        packs = list(chain(*step.batch.micro_batches))
        assert sorted(chain(*packs)) == list(range(len(step.lengths)))
        assert step.batch.num_micro_batches == told["num_micro_batches"]
        assert (LENGTHS[step.sample_ids - 100] == step.lengths).all()
        assert step.lengths.sum() == told["num_tokens"]
        seen += step.sample_ids.tolist()
    assert sorted(seen) == list(range(100, 150))
    with pytest.raises(IndexError, match="the plan has 4 steps"):
        plan.step(4)


def test_every_variant_sees_the_same_global_batches(inputs: dict[str, Path]) -> None:
    seen = []
    for balancer in (RandomBalancer(), SabBalancer()):
        plan_variant(stage(balancer=balancer), **inputs)
        plan = PlanFile(inputs["out"] / "plan.parquet", index=inputs["index"])
        seen.append([sorted(plan.step(i).sample_ids.tolist()) for i in range(plan.num_steps)])
    assert seen[0] == seen[1]


def test_another_number_of_ranks_sees_the_same_global_batches(inputs: dict[str, Path]) -> None:
    seen = []
    for num_ranks in (2, 5):
        plan_variant(stage(num_ranks=num_ranks), **inputs)
        plan = PlanFile(inputs["out"] / "plan.parquet", index=inputs["index"])
        seen.append([sorted(plan.step(i).sample_ids.tolist()) for i in range(plan.num_steps)])
    assert seen[0] == seen[1]


def test_the_summary_adds_up(inputs: dict[str, Path]) -> None:
    returned = plan_variant(stage(), **inputs)
    summary = json.loads((inputs["out"] / "summary.json").read_text())
    assert summary == returned
    overall, rows = summary["overall"], summary["steps"]
    assert overall["num_steps"] == len(rows) == 4
    assert overall["num_sequences"] == 50
    assert overall["num_tokens"] == LENGTHS.sum()
    assert all(row["bound_ms"] <= row["predicted_ms"] for row in rows)
    total = sum(row["predicted_ms"] for row in rows) / sum(row["bound_ms"] for row in rows)
    assert overall["optimality_gap"] == pytest.approx(total - 1)
    table = pq.read_table(inputs["out"] / "plan.parquet").to_pylist()
    model = TableLatencyModel.read(inputs["latency"], block_size=32)
    expected = model.predict(np.array([table[7]["num_tokens"]]), np.array([8]))
    assert table[7]["predicted_ms"] == pytest.approx(expected[0])


def test_the_same_inputs_give_the_same_bytes(inputs: dict[str, Path]) -> None:
    plan_variant(stage(), **inputs)
    first = (inputs["out"] / "plan.parquet").read_bytes()
    plan_variant(stage(), **inputs)
    assert (inputs["out"] / "plan.parquet").read_bytes() == first
    plan_variant(stage(seed=1), **inputs)
    assert (inputs["out"] / "plan.parquet").read_bytes() != first


def test_dense_attention_is_predicted_with_all_blocks(inputs: dict[str, Path]) -> None:
    sparse = plan_variant(stage(), **inputs)["overall"]["predicted_ms"]["mean"]
    dense = plan_variant(stage(attention="dense"), **inputs)["overall"]["predicted_ms"]["mean"]
    assert dense > sparse


def test_fewer_sequences_than_ranks_and_max_steps(inputs: dict[str, Path]) -> None:
    sampling = SamplingConfig(global_batch=16, num_epochs=2, max_steps=5)
    plan_variant(stage(num_ranks=4, sampling=sampling), **inputs)
    plan = PlanFile(inputs["out"] / "plan.parquet", index=inputs["index"])
    assert plan.num_steps == 5
    last = plan.step(3)
    assert len(last.lengths) == 2
    assert [len(rank) for rank in last.batch.micro_batches] == [1, 1, 1, 1]


def test_the_plan_of_another_data_set_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    plan_variant(stage(), **inputs)
    other = write_index(tmp_path / "other.parquet", np.arange(50), LENGTHS)
    with pytest.raises(SparseBalanceError, match="index_digest: the plan of another data set"):
        PlanFile(inputs["out"] / "plan.parquet", index=other)


@pytest.mark.parametrize(
    ("metadata", "told"),
    [({"format_version": "0"}, "format_version = 0: not 3"), ({}, "format_version = none: not 3")],
)
def test_another_format_is_refused(
    inputs: dict[str, Path], metadata: dict[str, str], told: str
) -> None:
    plan_variant(stage(), **inputs)
    path = inputs["out"] / "plan.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    with pytest.raises(SparseBalanceError, match=told):
        PlanFile(path, index=inputs["index"])


def test_broken_and_missing_plans_are_named(inputs: dict[str, Path]) -> None:
    path = inputs["out"] / "plan.parquet"
    with pytest.raises(SparseBalanceError, match=r"missing\. run the stage plan"):
        PlanFile(path, index=inputs["index"])
    path.parent.mkdir()
    path.write_text("no plan")
    with pytest.raises(SparseBalanceError, match="rerun the stage plan"):
        PlanFile(path, index=inputs["index"])


@pytest.mark.parametrize(
    ("ids", "lengths", "told"),
    [
        ([], [], "no samples. give a data set that is not empty"),
        ([1, 2, 1], [5, 5, 5], "sample_id = 1: there 2 times"),
        ([1, 2], [5, 0], r"row 1: num_tokens = 0: a sample without tokens \(sample_id 2\)"),
        ([1, 2], [5, 2000], "the longest sample has 2000 tokens, beyond latency.max_extrapol"),
    ],
)
def test_samples_that_cannot_be_planned_are_refused(
    inputs: dict[str, Path], ids: list[int], lengths: list[int], told: str
) -> None:
    write_index(inputs["index"], ids, lengths)
    with pytest.raises(SparseBalanceError, match=told) as caught:
        plan_variant(stage(), **inputs)
    assert "\n" not in str(caught.value)
    assert not inputs["out"].exists()


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        (pa.array([5, None, 7], type=pa.int32()), "num_tokens: empty cells: not whole numbers"),
        (pa.array([5.0, float("nan"), 7.0]), "num_tokens: of type double: not whole numbers"),
    ],
)
def test_lengths_that_are_no_numbers_are_refused(
    inputs: dict[str, Path], lengths: pa.Array, told: str
) -> None:
    pq.write_table(pa.table({"sample_id": [1, 2, 3], "num_tokens": lengths}), inputs["index"])
    with pytest.raises(SparseBalanceError, match=told):
        plan_variant(stage(), **inputs)
    assert not inputs["out"].exists()


def test_a_table_with_nan_is_refused(inputs: dict[str, Path]) -> None:
    path = inputs["latency"] / TABLE
    table = pq.read_table(path)
    times = table["median_ms"].to_numpy().copy()
    times[3] = np.nan
    at = table.schema.get_field_index("median_ms")
    pq.write_table(table.set_column(at, "median_ms", pa.array(times)), path)
    with pytest.raises(SparseBalanceError, match="median_ms = nan: not a time"):
        plan_variant(stage(), **inputs)
    assert not inputs["out"].exists()


def test_fewer_samples_than_ranks_are_planned_with_dummies(inputs: dict[str, Path]) -> None:
    write_index(inputs["index"], [7, 8, 9], [100, 200, 300])
    for barrier in Barrier:
        plan_variant(stage(num_ranks=5, barrier=barrier), **inputs)
        plan = PlanFile(inputs["out"] / "plan.parquet", index=inputs["index"])
        step = plan.step(0)
        assert sorted(step.sample_ids.tolist()) == [7, 8, 9]
        assert [len(rank) for rank in step.batch.micro_batches] == [1] * 5


def test_a_pipeline_with_a_slow_rank_is_planned_and_said(inputs: dict[str, Path]) -> None:
    changed = {"barrier": Barrier.PIPELINE, "num_stages": 4, "speed_factors": [1.0, 1.49]}
    summary = plan_variant(stage(**changed), **inputs)
    assert (summary["overall"]["num_stages"], summary["overall"]["barrier"]) == (4, "pipeline")
    plan = PlanFile(inputs["out"] / "plan.parquet", index=inputs["index"])
    assert plan.barrier is Barrier.PIPELINE
    tokens = np.zeros(2)
    for number in range(plan.num_steps):
        step = plan.step(number)
        for rank, packs in enumerate(step.batch.micro_batches):
            tokens[rank] += sum(step.lengths[list(pack)].sum() for pack in packs)
    assert tokens[0] > 1.2 * tokens[1]
    assert all(row["bound_ms"] <= row["predicted_ms"] * (1 + 1e-9) for row in summary["steps"])


def test_equal_speeds_change_nothing(inputs: dict[str, Path]) -> None:
    plan_variant(stage(), **inputs)
    first = (inputs["out"] / "plan.parquet").read_bytes()
    plan_variant(stage(speed_factors=[1.0, 1.01]), **inputs)  # rounded to 1/32
    assert (inputs["out"] / "plan.parquet").read_bytes() == first


def test_a_balancer_s_own_cost_makes_another_plan_judged_by_the_same(
    inputs: dict[str, Path],
) -> None:
    found = []
    for cost in ("measured", "tokens", "squared"):
        plan_variant(stage(balancer=SabBalancer(cost=cost)), **inputs)
        found.append(json.loads((inputs["out"] / "summary.json").read_text())["overall"])
    assert len({overall["predicted_ms"]["mean"] for overall in found}) == 3
    assert len({overall["bound_ms"]["mean"] for overall in found}) == 1
    assert found[0]["predicted_ms"]["mean"] == min(o["predicted_ms"]["mean"] for o in found)


def test_look_ahead_is_in_the_summary(inputs: dict[str, Path]) -> None:
    ahead = SamplingConfig(global_batch=8, look_ahead=3)
    overall = plan_variant(stage(sampling=ahead), **inputs)["overall"]
    assert "a change of sampling" in overall["sampling"]
    assert plan_variant(stage(), **inputs)["overall"]["sampling"] == "shuffled"


@pytest.mark.parametrize(
    ("topology", "told"),
    [
        ({"barrier": "pipeline"}, "topology.barrier = pipeline: training has no pipeline stages"),
        ({"num_stages": 4}, "topology.num_stages = 4: stages need barrier: pipeline, not step."),
        ({"speed_factors": [1.0]}, "speed_factors = [1.0]: 1 for 2 ranks. give one for each"),
        ({"speed_factors": [1.0, 0.0]}, "topology.speed_factors.1 = 0.0: should be greater"),
        ({"max_memory_gib": 0}, "topology.max_memory_gib = 0: should be greater than 0"),
    ],
)
def test_topologies_that_training_cannot_have_are_a_line(
    topology: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"topology": topology}, [])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_allowed_extrapolation_is_counted(inputs: dict[str, Path]) -> None:
    write_index(inputs["index"], [1, 2, 3], [1500, 1100, 900])
    overall = plan_variant(stage(max_extrapolation=1.5), **inputs)["overall"]
    assert overall["extrapolated"] == 2


def test_an_index_without_its_columns_is_refused(inputs: dict[str, Path]) -> None:
    pq.write_table(pa.table({"sample_id": [1]}), inputs["index"])
    with pytest.raises(SparseBalanceError, match="rerun the stage prepare"):
        plan_variant(stage(), **inputs)
    inputs["index"].unlink()
    with pytest.raises(SparseBalanceError, match=r"missing\. run the stage prepare"):
        plan_variant(stage(), **inputs)


def test_an_epoch_holds_every_sample_once_in_an_order_of_its_own() -> None:
    epochs = [list(global_batches(37, global_batch=8, seed=3, epoch=e)) for e in range(2)]
    assert [len(batch) for batch in epochs[0]] == [8, 8, 8, 8, 5]
    assert all(sorted(np.concatenate(epoch)) == list(range(37)) for epoch in epochs)
    assert not np.array_equal(epochs[0][0], epochs[1][0])


def test_steps_go_through_all_epochs() -> None:
    sampling = SamplingConfig(global_batch=8, num_epochs=3)
    assert len(list(steps(37, sampling, seed=0))) == 15


def test_a_summary_of_steps_by_hand() -> None:
    """Long steps weigh more in the gap of the sums, none more than others in the means."""
    steps = [
        StepSummary(n, ms, bound, ms / bound - 1, uneven, 2, 8, 100)
        for n, (ms, bound, uneven) in enumerate([(10.0, 8.0, 1.1), (30.0, 30.0, 1.5)])
    ]
    found = summarise_plan(steps)
    assert found["optimality_gap"] == pytest.approx(40 / 38 - 1)
    assert found["optimality_gap_p95"] == pytest.approx(0.95 * 0.25)
    assert found["imbalance"] == pytest.approx(1.3)
    assert found["predicted_ms"] == pytest.approx({"mean": 20.0, "p50": 20.0, "p95": 29.0})
    assert (found["num_steps"], found["num_sequences"], found["num_tokens"]) == (2, 16, 200)
    assert found["num_micro_batches"] == 4
