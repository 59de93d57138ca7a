"""Which whole micro-batches are run: packs like those of plans, none that memory cannot hold."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from sbcore.config.load import load_config
from sbcore.config.stages import ProfileLatencyStage, all_stages
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.latency.floor import Weighed
from sbcore.latency.micro_batches import MicroBatch, choose_micro_batches
from sbcore.latency.table import KNOWN

PARTS = AnalyticLatencyModel(256, 24, 0.0, 5.0, 1e-2, np.array([5e-3, 2e-5, 5e-8, 1e-7]))


@pytest.fixture
def stage(repository: Path) -> ProfileLatencyStage:
    path = repository / "config/latency/qwen2.5-0.5b.yaml"
    found = dict(all_stages(load_config(path)))["profile_latency"]
    assert isinstance(found, ProfileLatencyStage)
    return found


def chosen(stage: ProfileLatencyStage, *, seconds: float) -> list[MicroBatch]:
    grid = stage.latency.model_copy(update={"micro_batch_seconds": seconds})
    return choose_micro_batches(stage.model_copy(update={"latency": grid}), PARTS, gpu=True)


def test_packs_of_unequal_sequences_check_what_equal_ones_made(stage: ProfileLatencyStage) -> None:
    timed = [one for one in chosen(stage, seconds=1e6) if one.part not in ("floor", "memory")]
    assert all(one.held_out == (one not in equal(timed)) for one in timed)
    unequal = [one for one in timed if len(set(one.lengths)) > 1]
    assert {one.part for one in unequal} == {"micro_batch", *KNOWN}
    assert min(min(one.lengths) for one in unequal) < 200 < 32_000 < max(unequal[0].lengths)
    assert all(one.num_tokens <= stage.max_tokens for one in timed)
    assert {one.top_k for one in unequal} >= {16, 32}  # a cut budget and the configured one


def equal(timed: list[MicroBatch]) -> list[MicroBatch]:
    """Returns what makes the fit: equal sequences whose budget the host does not know."""
    return [one for one in timed if len(set(one.lengths)) == 1 and one.part == "micro_batch"]


def test_a_budget_is_called_covered_only_where_it_covers(stage: ProfileLatencyStage) -> None:
    for one in chosen(stage, seconds=1e6):
        reach = one.top_k * stage.attention.block_size
        assert one.part not in KNOWN or (one.part == "covered") == (reach >= max(one.lengths))


def test_little_time_still_has_both_kinds_and_ends_where_it_is_used_up(
    stage: ProfileLatencyStage,
) -> None:
    few, many = chosen(stage, seconds=24.0), chosen(stage, seconds=1e6)
    assert len(few) < len(many)
    assert set(few) <= set(many)
    assert sum(one.held_out and one.part != "memory" for one in few) >= 3
    assert len(equal(few)) >= 3
    assert [one.part for one in chosen(stage, seconds=0.01)] == ["floor"]


def test_what_json_makes_of_a_micro_batch_is_read_back(stage: ProfileLatencyStage) -> None:
    one = chosen(stage, seconds=24.0)[-1]
    assert MicroBatch.read(json.loads(json.dumps(asdict(one)))) == one


def test_what_every_micro_batch_needs_is_not_taken_for_growth() -> None:
    weighed = Weighed().with_peak(256, 13.0)  # gathered weights and gradients of a large model
    assert weighed.expects(2048) == 13.0
    weighed = weighed.with_peak(2048, 17.0).with_peak(2049, 17.4)
    assert weighed.expects(8192) == pytest.approx(17.4 + 1.25 * 4 / 1792 * (8192 - 2049))
    assert weighed.with_peak(4096, 17.0).gib == 17.4  # never below what was seen
