"""What tuning costs on a GPU: curve and clamp of a layer, whole micro-batches with and without.

torchrun --standalone --nproc-per-node 1 docs/results/tuning_overhead.py [2048 16384 65536]
prints two csv tables for Qwen2.5-0.5B on one rank, in about a minute:

- layer: host time of queueing curve and clamp of a layer, and device time of them alone (replayed
  from a graph, so no launch is in it); beside them the curve as the public function.
- micro-batch: forward and backward with budgets known to the host, with the same budgets unknown to
  it, and with a curve and a clamp in every layer that lead to the same budgets. One after the
  other, again and again; wall time. Clamped minus unknown is what tuning costs in the end; unknown
  minus known is what the host's ignorance costs, since dense attention is no choice then.

What is decided before a step runs on the host alone: tuning_decisions.py.
"""

import csv
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.distributed as dist

from sbcore.attention.call import AttentionCall
from sbcore.config.compute import AttentionConfig
from sbcore.config.shapes import SHAPES
from sbcore.config.training import ModelConfig, ModelShape, TrainConfig
from sbcore.model.assemble import TrainableModel, assemble
from sbcore.model.build import shape_config
from sbcore.train.batches import PackedBatch, to_device
from sbcore.train.clock import make_clock
from sbcore.train.ranks import Ranks, start_ranks
from sbcore.train.step import Work, run_micro_batches
from sbcore.tune.clamp import TargetBudgets
from sbcore.tune.ladder import make_ladder
from sbcore.tune.layer_clamp import ClampLimits, DeviceMeasure, LayerTables, row_stride
from sbcore.types import Barrier
from sbkernels import coverage_curve
from sbkernels.graphs import captured

BLOCK_SIZE, TOP_K, NUM_LAYERS, NUM_HEADS, NUM_KEY_HEADS, HEAD_DIM = 256, 32, 24, 14, 2, 64
LADDER = make_ladder(256, TOP_K)
RUNGS = tuple(LADDER.tolist())
HELD = ClampLimits(p=0.1, floor=TOP_K, cap=TOP_K)
"""Limits that lead back to k0, so that attention does the same work with and without the clamp."""
NUM_CALLS, NUM_WARMUP, NUM_ROUNDS, STEP_TOKENS = 48, 1, 5, 65_536
TRAIN = {
    "activation_checkpointing": "full",
    "recompute_above_tokens": 32_768,
    "layers_per_shard": 12,
    "keep_gathered": True,
}


def main() -> None:
    """Prints the tables."""
    packs = [int(word) for word in sys.argv[1:]] or [2048, 16_384, 65_536]
    ranks = start_ranks(wanted=1, device="auto")
    rows = csv.writer(sys.stdout)
    try:
        if ranks.device.type == "cuda":
            rows.writerow(("layer", "pack", "host_ms", "device_ms"))
            rows.writerows(row for pack in packs for row in _layers(pack, ranks.device))
            sys.stdout.flush()
        rows.writerow(("micro-batch", "pack", "p20_ms", "ms", "p80_ms", "tuning_host_ms"))
        model = _model(ranks)
        rows.writerows(row for pack in packs for row in _micro_batches(model, ranks, pack))
    finally:
        dist.destroy_process_group()


def _layers(pack: int, device: torch.device) -> Iterator[tuple[object, ...]]:
    q, k = (
        torch.randn(pack, heads, HEAD_DIM, device=device, dtype=torch.bfloat16)
        for heads in (NUM_HEADS, NUM_KEY_HEADS)
    )
    ends = torch.tensor([0, pack], dtype=torch.int32, device=device)
    call = AttentionCall(ends, (pack,), BLOCK_SIZE, "triton", budgets=None)
    budgets = torch.full((NUM_LAYERS, 4), TOP_K, dtype=torch.int32, device=device)
    tables = LayerTables(
        targets=budgets.clone(),
        budgets=budgets,
        curves=torch.ones(NUM_LAYERS, 1, len(RUNGS), device=device),
        ladder=torch.tensor(RUNGS, dtype=torch.int32, device=device),
        rungs=RUNGS,
        base_rung=RUNGS.index(TOP_K),
        limits=HELD,
    )
    layers = DeviceMeasure(tables, q, k, call)
    sizes = {"block_size": BLOCK_SIZE, "max_seqlen": pack, "row_stride": row_stride(pack)}
    calls: dict[str, Callable[[], object]] = {
        "curve and clamp": lambda: layers.measure(0, q, k),
        "curve alone, public function": lambda: coverage_curve(q, k, ends, ladder=RUNGS, **sizes),
    }
    for name, run in calls.items():
        yield name, pack, *(round(x, 4) for x in (_host_ms(run), _device_ms(run)))


def _host_ms(run: Callable[[], object]) -> float:
    """Returns what queueing a call takes, while the device's queue has room."""
    times = []
    for _ in range(NUM_ROUNDS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(NUM_CALLS):
            run()
        times.append(1e3 * (time.perf_counter() - started) / NUM_CALLS)
    return float(np.median(times))


def _device_ms(run: Callable[[], object]) -> float:
    def many() -> None:
        for _ in range(NUM_CALLS):
            run()

    replay = captured(many)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / NUM_CALLS


class Unknown(TargetBudgets):
    """Budgets that the host is told nothing of, as of clamped ones."""

    @property
    def top_k_range(self) -> None:
        """Returns nothing."""
        return


WAYS: dict[str, tuple[type[TargetBudgets], ClampLimits | None]] = {
    "known": (TargetBudgets, None),
    "unknown": (Unknown, None),
    "clamped": (TargetBudgets, HELD),
}


def _micro_batches(model: TrainableModel, ranks: Ranks, pack: int) -> Iterator[tuple[object, ...]]:
    clock, batch = make_clock(model.module, ranks.device), _batch(pack, ranks.device)
    num = max(min(STEP_TOKENS // pack, 4), 1)
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    host_ms: dict[str, float] = {}
    for _ in range(NUM_WARMUP + NUM_ROUNDS):
        for way, (kind, limits) in WAYS.items():
            budgets = [_budgets(kind, limits, ranks.device) for _ in range(num)]
            _wait(ranks)
            started = time.perf_counter()
            clock.start()
            run_micro_batches(
                model.module,
                Work([batch] * num, budgets, num * pack),
                attention=AttentionConfig(block_size=BLOCK_SIZE, top_k=TOP_K),
                barrier=Barrier.STEP,
                recompute=model.recompute,
                clock=clock,
            )
            _wait(ranks)
            times[way].append(1e3 * (time.perf_counter() - started) / num)
            host_ms[way] = sum(source.host_ms for source in budgets) / num
            model.module.zero_grad(set_to_none=True)
    for way, taken in times.items():
        spread = np.percentile(taken[NUM_WARMUP:], [20, 50, 80]).round(2).tolist()
        yield way, pack, *spread, round(host_ms[way], 3)


def _wait(ranks: Ranks) -> None:
    if ranks.device.type == "cuda":
        torch.cuda.synchronize()


def _budgets(
    kind: type[TargetBudgets], limits: ClampLimits | None, device: torch.device
) -> TargetBudgets:
    return kind(
        torch.full((NUM_LAYERS, 1), TOP_K, dtype=torch.int32),
        (0,),
        torch.tensor(RUNGS, dtype=torch.int32, device=device),
        RUNGS,
        TOP_K,
        limits=limits,
        measure=False,
        dense=False,
    )


def _batch(pack: int, device: torch.device) -> PackedBatch:
    ids = torch.arange(pack) * 7919 % 1192
    at = torch.arange(0, pack - 1, 16)
    return PackedBatch(
        input_ids=to_device(ids[None], device),
        position_ids=to_device(torch.arange(pack)[None], device),
        cu_seqlens=to_device(torch.tensor([0, pack], dtype=torch.int32), device),
        predict_at=to_device(at, device),
        labels=to_device(ids[at + 1], device),
        lengths=(pack,),
        sequences=(0,),
    )


def _model(ranks: Ranks) -> TrainableModel:
    shape = ModelShape.model_validate(SHAPES["Qwen2.5-0.5B"])
    return assemble(
        shape_config(shape, vocab_size=shape.vocab_size or 1192, max_tokens=2**17),
        ModelConfig(dtype="bfloat16" if ranks.device.type == "cuda" else "float32"),
        TrainConfig.model_validate(TRAIN),
        mesh=ranks.mesh(),
        barrier=Barrier.STEP,
        weights=None,
        seed=0,
    )


if __name__ == "__main__":
    main()
