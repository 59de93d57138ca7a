"""Which whole micro-batches are run: packs like those of plans, none that memory cannot hold."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from sbcore.config.load import load_config
from sbcore.config.stages import ProfileLatencyStage, all_stages
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.latency.floor import Weighed, _repeats, _rounds, _warm_up
from sbcore.latency.micro_batches import (
    ROUNDS,
    MicroBatch,
    choose_micro_batches,
    rounds_of,
    runs_of,
)
from sbcore.latency.table import KNOWN
from sbcore.latency.whole import FirstRun, WholeRuns

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


def test_short_ones_run_often_and_the_longest_once() -> None:
    assert [rounds_of(ms) for ms in (1.0, 1500.0, 1501.0)] == [ROUNDS, ROUNDS, 1]
    assert [runs_of(ms) for ms in (1.0, 299.0, 300.0, 5000.0)] == [3, 3, 1, 1]


def test_a_gpu_weighs_two_short_ones_in_both_settings(stage: ProfileLatencyStage) -> None:
    found = [one for one in chosen(stage, seconds=1e6) if one.part == "memory"]
    longest = min(max(stage.latency.lengths), stage.max_tokens)
    assert {(one.num_tokens, one.recompute) for one in found} == {
        (longest // part, again) for part in (8, 16) for again in (True, False)
    }


@pytest.mark.parametrize(("constant_ms", "gpu", "weighed"), [(1000.0, False, 0), (0.0, True, 4)])
def test_a_run_takes_what_launching_takes_too(
    stage: ProfileLatencyStage, constant_ms: float, gpu: bool, weighed: int
) -> None:
    """One and twice one, 3 s, on a CPU; on a GPU a guess: one and twice three of 0.1 s."""
    nothing = AnalyticLatencyModel(256, 24, 0.0, constant_ms, 0.0, np.zeros(4))
    seconds = 2 * 0.7 + 4 * 0.1 if gpu else 2 * 3.0
    for more, timed in ((0.01, 2), (-0.01, 1)):
        grid = stage.latency.model_copy(update={"micro_batch_seconds": seconds + more})
        short = stage.model_copy(update={"latency": grid})
        found = choose_micro_batches(short, nothing, gpu=gpu)
        assert len(found) == 1 + weighed + timed


def test_nothing_is_longer_than_the_grid(stage: ProfileLatencyStage) -> None:
    """Packs may be: their tokens together are the most that a micro-batch may have."""
    grid = stage.latency.model_copy(update={"lengths": [256, 4096, 20_000]})
    short = stage.model_copy(update={"latency": grid})
    found = chosen(short, seconds=1e6)
    assert max(max(one.lengths) for one in found) == 20_000
    assert max(one.num_tokens for one in found) > 32_768


@pytest.mark.parametrize(("above", "settings"), [(40_000, {True, False}), (10, {True})])
def test_the_other_setting_of_recomputation_is_run_once_where_plans_have_both(
    stage: ProfileLatencyStage, above: int, settings: set[bool]
) -> None:
    """The first one, a quarter of the most tokens: short enough not to be recomputed, or not."""
    recomputed = {"activation_checkpointing": "full", "recompute_above_tokens": above}
    found = equal(chosen(stage.model_copy(update=recomputed), seconds=1e6))
    assert {one.recompute for one in found if one.lengths == found[0].lengths} == settings
    both = [one for one in found if one.recompute != (one.num_tokens > above)]
    assert len(both) == len(settings) - 1


def test_what_json_makes_of_a_micro_batch_is_read_back(stage: ProfileLatencyStage) -> None:
    one = chosen(stage, seconds=24.0)[-1]
    assert MicroBatch.read(json.loads(json.dumps(asdict(one)))) == one


def test_what_every_micro_batch_needs_is_not_taken_for_growth() -> None:
    weighed = Weighed().with_peak(256, 13.0)  # gathered weights and gradients of a large model
    assert weighed.expects(2048) == 13.0
    weighed = weighed.with_peak(2048, 17.0).with_peak(2049, 17.4)
    assert weighed.expects(8192) == pytest.approx(17.4 + 1.25 * 4 / 1792 * (8192 - 2049))
    assert weighed.with_peak(4096, 17.0).gib == 17.4  # never below what was seen


def test_growth_is_told_by_half_as_many_tokens_more_and_never_falls() -> None:
    weighed = Weighed().with_peak(1000, 10.0).with_peak(1500, 12.0)
    assert weighed.gib_per_token == pytest.approx(2.0 / 500)
    assert weighed.with_peak(3000, 11.0).gib_per_token == 0.0


class FakeRuns:
    """Runs that take a microsecond a token, on a device whose free memory is known."""

    def __init__(
        self, stage: ProfileLatencyStage, *, free_gib: float | None, kept_gib: float
    ) -> None:
        self.config, self.kept_gib, self.free = stage, kept_gib, free_gib
        self.ranks = SimpleNamespace(rank=1, most=float, mean=list)
        self.run: list[MicroBatch] = []
        self.timed: list[tuple[MicroBatch, int]] = []

    def free_gib(self) -> float | None:
        return self.free

    def once(self, one: MicroBatch) -> FirstRun:
        """Keeps a GiB per 1,000 tokens, a tenth of it where layers are recomputed."""
        self.run.append(one)
        share = 0.1 if one.recompute else 1.0
        peak = None if self.free is None else self.kept_gib + share * one.num_tokens / 1000
        return FirstRun(one.num_tokens / 1000, peak)

    def times(self, one: MicroBatch, num: int) -> list[float]:
        self.timed.append((one, num))
        return [one.num_tokens / 1000] * num


def of(tokens: int, *, part: str = "micro_batch", recompute: bool = False) -> MicroBatch:
    return MicroBatch(part, (tokens,), 4, recompute, held_out=False)


def warm_up(runs: FakeRuns, wanted: list[MicroBatch]) -> dict[MicroBatch, FirstRun]:
    return _warm_up(cast(WholeRuns, runs), wanted)


def test_what_memory_cannot_hold_is_not_run_and_short_ones_say_what_that_is(
    stage: ProfileLatencyStage,
) -> None:
    kept = [of(n) for n in (1000, 4000, 16_000, 24_000, 64_000)]
    again = [of(n, recompute=True) for n in (1000, 4000, 64_000)]
    runs = FakeRuns(stage, free_gib=30.0, kept_gib=2.0)
    found = warm_up(runs, [*kept[::-1], *again[::-1]])
    assert set(found) == {*kept[:3], *again}, "24,000 take 26 of 30 GiB, too near"
    tokens = [one.num_tokens for one in runs.run]
    assert tokens == sorted(tokens)
    assert len(warm_up(FakeRuns(stage, free_gib=None, kept_gib=2.0), kept)) == 5


def test_each_is_timed_in_both_rounds_but_long_ones_once_and_weighed_ones_never(
    stage: ProfileLatencyStage,
) -> None:
    runs = FakeRuns(stage, free_gib=None, kept_gib=0.0)
    weighed = of(1000, part="memory")
    short, middle, long = of(2000), of(500_000), of(2_000_000)
    first = warm_up(runs, [weighed, short, middle, long])
    times = _rounds(cast(WholeRuns, runs), first)
    assert times[weighed] == [1.0]
    rounds = {one: [num for timed, num in runs.timed if timed == one] for one in first}
    assert rounds[long] == [1]
    assert len(rounds[short]) == len(rounds[middle]) == ROUNDS
    assert [len(times[one]) for one in (short, long)] == [sum(rounds[short]), 1]


@pytest.mark.parametrize(
    ("once_ms", "share_ms", "num"),
    [(1.0, 7.0, 7), (1.0, 900.0, 20), (1.0, 0.5, 2), (400.0, 100.0, 1), (400.0, 1200.0, 3)],
    ids=["by its share", "at most", "three runs at least", "long", "long with time"],
)
def test_a_round_repeats_as_its_share_of_time_allows(
    once_ms: float, share_ms: float, num: int
) -> None:
    assert _repeats(once_ms, share_ms, max_repeats=20 * ROUNDS) == num
