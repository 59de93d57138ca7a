"""The memory limit as a cap in tokens."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from sbcore.config.compute import TopologyConfig
from sbcore.config.schema import Config
from sbcore.config.stages import plan_stage
from sbcore.errors import SparseBalanceError
from sbcore.latency.memory import Memory, MemoryCurve
from sbcore.latency.model import TableLatencyModel
from sbcore.plan import bench
from sbcore.plan.index import Samples
from sbcore.plan.memory import capped_tokens
from sbcore.plan.planner import make_topology
from sbcore.types import IntArray


@dataclass
class Latency:
    """1 GiB and 1 more for every 1,000 tokens; above `again` a tenth of that."""

    again: int = 10**9
    memory: object = "measured"

    def memory_gib(self, lengths: IntArray) -> float | None:
        tokens = int(lengths.sum())
        return 1.0 + tokens / (1000.0 if tokens <= self.again else 10_000.0)


def samples(*lengths: int) -> Samples:
    return Samples(np.arange(50, 50 + len(lengths)), np.array(lengths))


def capped(latency: Latency, gib: float, *lengths: int, max_tokens: int = 65_536) -> int:
    return capped_tokens(  # type: ignore[arg-type]
        latency, samples(*lengths), max_tokens=max_tokens, max_memory_gib=gib
    )


def test_the_cap_is_the_largest_that_fits() -> None:
    assert capped(Latency(), 21.0, 100) == 20_000
    assert capped(Latency(), 100.0, 100) == 65_536
    assert capped(Latency(), 1.001, 1) == 1
    assert capped(Latency(again=2), 1.0005, 5) == 1  # at least one, though one alone needs more


def test_recomputation_does_not_hide_what_does_not_fit_below_it() -> None:
    """50,000 recomputed tokens need 6 GiB, but 19,000 kept ones 20."""
    assert capped(Latency(again=20_000), 10.0, 100) == 9_000
    assert capped(Latency(again=20_000), 10.0, 100, 50_000) == 9_000  # travels alone


def test_the_cap_of_a_measured_table_is_the_topology_s(tmp_path: Path) -> None:
    bench._write_profile(tmp_path / "profile")
    latency = TableLatencyModel.read(tmp_path / "profile", block_size=256)
    curve = MemoryCurve((1000, 2000), (2.0, 3.0))
    measured = replace(latency, memory=Memory(curve, curve, recompute_above=None))
    config = Config(topology=TopologyConfig(max_tokens=65_536, max_memory_gib=21.0))
    stage = plan_stage(config, "baseline")
    assert make_topology(stage, samples(100, 19_000), measured).max_tokens == 20_000
    with pytest.raises(SparseBalanceError, match=r"needs 31\.0 GiB alone"):
        make_topology(stage, samples(100, 30_000), measured)
    with pytest.raises(SparseBalanceError, match="holds no memory"):
        make_topology(stage, samples(100), latency)


def test_a_sample_that_does_not_fit_alone_is_refused() -> None:
    told = r"sample_id 51 of 30000 tokens needs 31\.0 GiB alone\. lower data\.max_sample_tokens"
    with pytest.raises(SparseBalanceError, match=told):
        capped(Latency(), 21.0, 100, 30_000)


def test_a_table_without_memory_is_refused() -> None:
    with pytest.raises(SparseBalanceError, match=r"holds no memory \(peak_gib\)"):
        capped(Latency(memory=None), 21.0, 100)
