"""What a micro-batch costs the host under each way to run the layers: the floor of short ones.

torchrun --standalone --nproc-per-node 2 docs/results/host_floor.py Qwen2.5-0.5B 2048 16384 64x1024
prints a csv: a row for each way and pack, milliseconds of wall time of a micro-batch forward and
backward among several in a row, peak memory, the share of the device's peak by the three counts of
`sbcore.train.flops` (the update is not in the time), and the loss, which must not depend on the way
but to rounding. Words that are no packs choose among the ways by what their names hold; `profile`
adds the host's time by operator to stderr. On two H100s the first six ways with 2048 16384 65536
took about 100 s.

torchrun --standalone --nproc-per-node 2 docs/results/host_floor.py Qwen2.5-3B 32768 selective \
  "few collectives, recomputed"
is how much of the peak the larger shape reaches.
"""

import csv
import gc
import os
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from sbcore.ablation.store import TARGET_STRIDE
from sbcore.config.compute import AttentionConfig
from sbcore.config.lora import LoraConfig
from sbcore.config.shapes import SHAPES
from sbcore.config.training import ModelConfig, ModelShape, TrainConfig
from sbcore.device import device_name
from sbcore.model import assemble as assembling
from sbcore.model.assemble import TrainableModel
from sbcore.model.build import shape_config
from sbcore.train.batches import PackedBatch, to_device
from sbcore.train.clock import make_clock
from sbcore.train.flops import count, model_facts, peak_flops
from sbcore.train.ranks import Ranks, start_ranks
from sbcore.train.step import Work, run_micro_batches
from sbcore.tune.clamp import ClampLimits, TargetBudgets
from sbcore.types import Barrier

FULL = {"activation_checkpointing": "full"}
SELECTIVE, COMPILED = {"activation_checkpointing": "selective"}, {"compile_layers": True}
FEW = {"layers_per_shard": 12, "keep_gathered": True}
LIBRARY, DENSE, TUNED, LORA = "library's layers", "dense", "tuned", "adapters"
"""In a way's name: the model family's own forward, attention to all blocks, budgets moved by p,
low-rank adapters in all linear layers, which alone are trained."""
WAYS = {
    "recomputed, library's layers": FULL,
    "few collectives, library's layers": FEW,
    "recomputed": FULL,
    "plain": {},
    "few collectives": FEW,
    "few collectives, recomputed": FULL | FEW,
    "few collectives, tuned": FEW,
    "few collectives, recomputed, dense": FULL | FEW,
    "few collectives, selective": SELECTIVE | FEW,
    "few collectives, selective, dense": SELECTIVE | FEW,
    "few collectives, adapters": FEW,
    "few collectives, adapters, library's layers": FEW,
    "few collectives, compiled": COMPILED | FEW,
    "few collectives, compiled, selective": COMPILED | SELECTIVE | FEW,
}
NUM_WARMUP, NUM_MEASURED, VOCAB_SIZE = 1, 3, 1192
BLOCK_SIZE, TOP_K, MOST_BLOCKS = 256, 32, 512
Settings = dict[str, Any]
COUNTS = ("useful", "dense_equivalent", "executed")
HEAD = ("device", "shape", "way", "num_ranks", "pack", "p20_ms", "ms", "p80_ms", "peak_gib")
HEAD += (*(f"{name}_mfu_pct" for name in COUNTS), "loss")
MOST_MICRO_BATCHES, STEP_TOKENS = 4, 65_536
"""A step has so many micro-batches, or fewer if they are long."""
KEPT_TOKENS = {"Qwen2.5-0.5B": 65_536, "Qwen2.5-3B": 12_288}
"""Beyond these activations do not fit into 80 GB unless they are recomputed; the library's layers,
which keep nearly twice as much, not beyond half."""


def main() -> None:
    """Prints the csv on rank 0."""
    shape, *words = sys.argv[1:]
    packs = [_pack(word) for word in words if word[0].isdigit()]
    parts = [word for word in words if not word[0].isdigit() and word != "profile"]
    ways = {w: WAYS[w] for w in WAYS if not parts or any(part in w for part in parts)}
    ranks = start_ranks(wanted=int(os.environ["WORLD_SIZE"]), device="auto")
    rows = csv.writer(sys.stdout)
    rank0 = ranks.rank == 0
    if rank0:
        rows.writerow(HEAD)
    for way, train in ways.items():
        made = _model(ranks, shape, way, TrainConfig.model_validate(train))
        clock = make_clock(made.module, ranks.device)
        for pack in [p for p in packs if _fits(shape, way, train, sum(p))]:
            times, loss, peak = _measure(made, clock, ranks, way, pack)
            p20, median, p80 = np.percentile(times, [20, 50, 80]).round(1)
            name = f"{len(pack)}x{pack[0]}"
            facts = (device_name(ranks.device), shape, way, ranks.world_size, name)
            shares = _shares_of_peak(made, way, pack, facts[0], 1e-3 * float(median))
            if rank0:
                rows.writerow((*facts, p20, median, p80, f"{peak:.1f}", *shares, f"{loss:.4f}"))
                sys.stdout.flush()
        if "profile" in words:
            _profile(made, clock, ranks, way, packs[0])
        del made, clock
        gc.collect()
    dist.destroy_process_group()


def _pack(word: str) -> tuple[int, ...]:
    """Returns the lengths of 2048 or 64x1024."""
    number, _, length = word.rpartition("x")
    return (int(length),) * int(number or 1)


def _fits(shape: str, way: str, train: Settings, num_tokens: int) -> bool:
    whole = LIBRARY in way or "compile_layers" in train
    kept = KEPT_TOKENS.get(shape, 2 * num_tokens) // (2 if whole else 1)
    return "activation_checkpointing" in train or num_tokens <= kept


def _shares_of_peak(
    made: TrainableModel, way: str, pack: tuple[int, ...], device: str, seconds: float
) -> list[str]:
    """Returns percent of the peak by the three counts, empty where the peak is not known."""
    facts, peak = model_facts(made.module), peak_flops(device)
    work = count(
        facts,
        np.array(pack),
        np.full((facts.num_layers, len(pack)), MOST_BLOCKS if DENSE in way else TOP_K),
        block_size=BLOCK_SIZE,
        num_target_tokens=len(range(0, sum(pack) - 1, TARGET_STRIDE)),
        recomputed=np.full(len(pack), float(made.recompute.applies(sum(pack)))),
        attention_again=made.recompute.mode == "full",
    )
    done = [getattr(work, name) for name in COUNTS]
    return ["" if peak is None else f"{100 * flop / (peak * seconds):.1f}" for flop in done]


def _model(ranks: Ranks, shape: str, way: str, train: TrainConfig) -> TrainableModel:
    assembling.suits_own_forward = lambda model: LIBRARY not in way  # type: ignore[assignment]
    named = {name: keys for name, keys in SHAPES.items() if name == shape}
    values = ModelShape.model_validate(named.get(shape, {}))  # type: ignore[call-overload]
    on_gpu = ranks.device.type == "cuda"
    return assembling.assemble(
        shape_config(values, vocab_size=values.vocab_size or VOCAB_SIZE, max_tokens=2**17),
        ModelConfig(
            dtype="bfloat16" if on_gpu else "float32", lora=LoraConfig() if LORA in way else None
        ),
        train,
        mesh=ranks.mesh(),
        barrier=Barrier.MICRO,
        weights=None,
        seed=0,
    )


def _measure(made: TrainableModel, clock, ranks: Ranks, way: str, pack):  # noqa: ANN001, ANN202
    num = min(max(STEP_TOKENS // sum(pack), 1), MOST_MICRO_BATCHES)
    times, loss = [], torch.zeros(())
    on_gpu = ranks.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(NUM_WARMUP + NUM_MEASURED):
        work = _work(made, way, pack, num, ranks.device)
        dist.barrier()
        started = time.perf_counter()
        loss = _run(made, clock, work)
        if on_gpu:
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - started) / num)
        made.module.zero_grad(set_to_none=True)
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
    return times[NUM_WARMUP:], float(loss), peak


def _profile(made: TrainableModel, clock, ranks: Ranks, way: str, pack) -> None:  # noqa: ANN001
    """Prints where the host's time of one micro-batch goes."""
    work = _work(made, way, pack, 1, ranks.device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        _run(made, clock, work)
    made.module.zero_grad(set_to_none=True)
    if ranks.rank == 0:
        table = seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=40)
        sys.stderr.write(f"{way}\n{table}\n")


def _run(made: TrainableModel, clock, work: Work) -> torch.Tensor:  # noqa: ANN001
    clock.start()
    return run_micro_batches(
        made.module,
        work,
        attention=AttentionConfig(block_size=BLOCK_SIZE, top_k=TOP_K),
        barrier=Barrier.MICRO,
        recompute=made.recompute,
        clock=clock,
    )


def _work(made: TrainableModel, way: str, pack, num: int, device) -> Work:  # noqa: ANN001
    batches = [_batch(pack, device) for _ in range(num)]
    return Work(batches, [_budgets(made, way, batch) for batch in batches], num * sum(pack))


def _batch(lengths: tuple[int, ...], device: torch.device) -> PackedBatch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, VOCAB_SIZE, (sum(lengths),), generator=generator)
    at = torch.arange(0, len(ids) - 1, TARGET_STRIDE)
    return PackedBatch(
        input_ids=to_device(ids[None], device),
        position_ids=to_device(torch.cat([torch.arange(n) for n in lengths])[None], device),
        cu_seqlens=to_device(torch.tensor([0, *lengths]).cumsum(0).to(torch.int32), device),
        predict_at=to_device(at, device),
        labels=to_device(ids[at + 1], device),
        lengths=lengths,
        sequences=tuple(range(len(lengths))),
    )


def _budgets(made: TrainableModel, way: str, batch: PackedBatch) -> TargetBudgets:
    ladder = (1, TOP_K // 2, TOP_K, MOST_BLOCKS)
    layers = made.module.config.num_hidden_layers
    device = batch.input_ids.device
    top_k = MOST_BLOCKS if DENSE in way else TOP_K
    return TargetBudgets(
        torch.full((layers, len(batch.lengths)), top_k, dtype=torch.int32),
        batch.sequences,
        torch.tensor(ladder, dtype=torch.int32, device=device),
        ladder,
        TOP_K,
        limits=ClampLimits(0.05, 1, MOST_BLOCKS) if TUNED in way else None,
        measure=False,
        dense=DENSE in way,
    )


if __name__ == "__main__":
    main()
