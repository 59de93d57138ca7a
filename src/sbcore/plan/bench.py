"""How long planning takes: ``python -m sbcore.plan.bench``; the last line is one json object.

`ms_16_8` and `ms_4096_1024` are medians over global batches of the slower barrier; `s_1e6` and
`gib_1e6` plan an epoch of a million sequences (16 per step, 2 ranks: the most steps), files
included, in a process of its own; `s_profile_1e7` is the length profile of ten million records.
Lengths are lognormal up to 64K tokens, costs a formula, so nothing needs to be measured first.
"""

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sbcore.artifacts import write_json
from sbcore.config.data import LengthProfileConfig, SamplingConfig
from sbcore.config.method import SabBalancer
from sbcore.config.stages import PlanStage, ProfileLengthsStage
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.latency.table import HEADER, TABLE, MeasuredPoint, write_points
from sbcore.plan.balancers.sab import plan
from sbcore.plan.cost import BudgetCost
from sbcore.types import Barrier, IntArray, Topology

_BLOCK_SIZE, _TOP_K, _LONGEST = 256, 32, 65536
_LAYERS = AnalyticLatencyModel(
    block_size=_BLOCK_SIZE,
    num_layers=24,
    floor_ms=100.0,
    constant_ms=5.0,
    ms_per_token=4e-3,
    coefficients=np.array([0.05, 1e-4, 4e-9, 2e-9]),
)
"""Of the order of a 0.5B model on one H100; only its shape matters here."""


def main() -> None:
    """Runs all benchmarks; progress goes to stderr, the json object to stdout."""
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, bench in _BENCHES.items():
            sys.stderr.write(f"{name} ...\n")
            results |= bench(Path(folder))
    sys.stdout.write(json.dumps(results) + "\n")


def _lengths(count: int) -> IntArray:
    drawn = np.random.default_rng(0).lognormal(8.8, 1.1, size=count)
    return np.clip(drawn, 64, _LONGEST).astype(np.int64)


def _one_step(num_sequences: int, num_ranks: int, *, repeats: int) -> float:
    """Returns the median milliseconds of a plan under the slower barrier that training knows."""
    cost = BudgetCost(_LAYERS, _TOP_K)
    lengths = _lengths(num_sequences * repeats).reshape(repeats, num_sequences)
    medians = []
    for barrier in (Barrier.STEP, Barrier.MICRO):
        topology = Topology(num_ranks, barrier, _LONGEST, max_sequences=0)
        times = []
        for batch in lengths:
            started = time.perf_counter()
            plan(batch, topology, cost=cost, seed=0, config=SabBalancer())
            times.append(time.perf_counter() - started)
        medians.append(float(np.median(times)) * 1e3)
    return round(max(medians), 3)


def _steps(_: Path) -> dict[str, float]:
    return {
        "ms_16_8": _one_step(16, 8, repeats=300),
        "ms_4096_1024": _one_step(4096, 1024, repeats=20),
    }


def _epoch(folder: Path) -> dict[str, float]:
    """Plans in a fresh process, whose peak of memory is then the plan's."""
    index, latency = folder / "index.parquet", folder / "profile"
    _write_index(index, 1_000_000)
    _write_profile(latency)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        seconds, gib = pool.apply(_plan_epoch, (index, latency, folder / "plan"))
    return {"s_1e6": seconds, "gib_1e6": gib}


def _plan_epoch(index: Path, latency: Path, out: Path) -> tuple[float, float]:
    from sbcore.plan.planner import plan_variant

    config = PlanStage(
        variant="sab",
        seed=0,
        sampling=SamplingConfig(),
        block_size=_BLOCK_SIZE,
        top_k=_TOP_K,
        attention="sparse",
        balancer=SabBalancer(),
        num_ranks=2,
        num_stages=1,
        speed_factors=[],
        barrier=Barrier.STEP,
        max_tokens=_LONGEST,
        max_memory_gib=None,
        max_sequences=0,
        max_extrapolation=1.0,
    )
    started = time.perf_counter()
    plan_variant(config, index=index, latency=latency, out=out)
    seconds = round(time.perf_counter() - started, 2)
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds, round(kib / 2**20, 3)


def _length_profile(folder: Path) -> dict[str, float]:
    from sbcore.lengths.profile import profile_lengths

    index = folder / "many.parquet"
    _write_index(index, 10_000_000)
    config = ProfileLengthsStage(lengths=LengthProfileConfig())
    started = time.perf_counter()
    profile_lengths(config, index=index, out=folder)
    return {"s_profile_1e7": round(time.perf_counter() - started, 2)}


def _write_index(path: Path, count: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lengths = _lengths(count)
    columns = {
        "sample_id": np.arange(count),
        "offset": np.cumsum(lengths) - lengths,
        "num_tokens": lengths.astype(np.int32),
        "num_target_tokens": np.minimum(lengths - 1, 80).astype(np.int32),
    }
    pq.write_table(pa.table(columns), path)


def _write_profile(folder: Path) -> None:
    """Writes the formula as a table."""
    lengths = [2**power for power in range(8, 17)]
    rows = [("floor", _BLOCK_SIZE, 1, 1, 105.0)]
    rows += [("linear", length, 0, 1, 5.0 + 4e-3 * length) for length in lengths]
    for length in lengths:
        num_blocks = length // _BLOCK_SIZE
        for top_k in [k for k in (1, 4, 16, 32, 64) if k < num_blocks] + [num_blocks]:
            ms = float(_LAYERS.attention_ms(np.array(length), np.array(top_k)))
            rows.append(("attention", length, top_k, 1, ms))
    rows.append(("attention", 256, 1, 4, 1.0))
    points = [MeasuredPoint(p, n, k, s, ms, ms, ms, 1, held_out=False) for p, n, k, s, ms in rows]
    folder.mkdir()
    write_points(folder / TABLE, points)
    head = {"block_size": _BLOCK_SIZE, "num_layers": _LAYERS.num_layers, "device_type": "cuda"}
    write_json(folder / HEADER, head | {"forward": "formula", "loss": "formula"})


_BENCHES: dict[str, Callable[[Path], dict[str, float]]] = {
    "one step": _steps,
    "an epoch of 1e6 sequences": _epoch,
    "length profile of 1e7 records": _length_profile,
}


if __name__ == "__main__":
    main()
