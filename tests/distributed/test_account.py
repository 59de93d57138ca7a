"""The time account of a training: each part in the column of the rank that it took."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.distributed

SLOW_MS = 60.0


@pytest.fixture(scope="module")
def rows(tiny_run, forked, workers, tmp_path_factory):
    out = tmp_path_factory.mktemp("uneven")
    forked(workers / "uneven.py", SLOW_MS / 1e3, *tiny_run.words("sab_dst", out))
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def times(rows, part):
    """Milliseconds of a part, [S, R]."""
    return np.array([row[f"{part}_ms"] for row in rows])


@pytest.mark.parametrize(("part", "slow"), [("tune", 0), ("optimizer", 0), ("data", 1)])
def test_what_a_rank_is_slow_at_stands_in_its_own_column(rows, part, slow):
    found = times(rows[:-1], part)  # nothing is prepared in the last step
    assert (found[:, slow] >= SLOW_MS).all()
    assert np.median(found[:, 1 - slow]) < SLOW_MS / 2


def test_a_checkpoint_counts_in_the_step_after_it_on_the_rank_that_stood_still(rows):
    found = times(rows, "checkpoint")
    is_after = np.isin(np.arange(8), [2, 4, 6])
    assert (found[~is_after] == 0).all()
    assert (found[is_after, 1] >= SLOW_MS).all()
    assert (found[is_after, 0] > 0).all()
    assert np.median(found[is_after, 0]) < SLOW_MS / 2


def test_steps_count_from_the_end_of_the_warm_up_on(rows):
    assert [row["measured"] for row in rows] == [False] + [True] * 7


def test_losses_are_shared_by_the_targets_of_the_whole_global_batch(rows, tiny_run):
    index = pq.read_table(tiny_run.folder / "data/index.parquet").to_pydict()
    targets = dict(zip(index["sample_id"], index["num_target_tokens"], strict=True))
    plan = pq.read_table(tiny_run.folder / "variants/sab_dst/plan/plan.parquet").to_pylist()
    for number, row in enumerate(rows):
        samples = [one["sample_id"] for one in plan if one["step"] == number]
        counted = sum(targets[sample] for sample in samples if sample in targets)
        assert row["num_target_tokens"] == counted
        assert 2.0 < row["loss"] < 6.0, "near ln 61 for each target of random tokens"


def test_parts_of_a_rank_follow_each_other_within_the_step(rows):
    follow = sum(times(rows, part) for part in ("compute", "waiting", "gap", "optimizer"))
    step_ms = np.array([row["step_ms"] for row in rows])
    rest = step_ms[:, None] - follow
    assert (rest > -0.01).all(), "milliseconds are rounded to the third digit"
    assert all(times(rows, part).shape == (8, 2) for part in ("compute", "plan", "tune", "gap"))


def test_what_is_decided_for_the_next_step_is_in_the_gap(rows):
    """Every second step follows a checkpoint, and decides for itself before it begins."""
    ahead = rows[1::2]
    decided = sum(times(ahead, part) for part in ("data", "plan"))
    assert (decided <= times(ahead, "gap") + 0.01).all()
