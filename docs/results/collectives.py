"""What the collectives of one micro-batch take when no rank is late: transfer, not waiting.

torchrun --standalone --nproc-per-node 2 docs/results/collectives.py
"""

import sys

import numpy as np
import torch
import torch.distributed as dist

from sbcore.config.compute import AttentionConfig
from sbcore.config.training import ModelShape
from sbcore.model.build import build_model, set_default_attention, shape_config
from sbcore.train.clock import StepClock, time_collectives
from sbcore.train.sharding import Ranks, shard_model, start_ranks
from sbcore.types import Barrier

VOCAB_SIZE, NUM_TOKENS, NUM_WARMUP, NUM_MEASURED = 1192, 16, 10, 50


def collective_ms(ranks: Ranks, barrier: Barrier) -> list[float]:
    """Returns the time in collectives of equal micro-batches that all ranks begin together."""
    config = shape_config(ModelShape(), vocab_size=VOCAB_SIZE, max_tokens=512)
    model = build_model(config, seed=0, dtype=torch.float32)
    set_default_attention(model, "dense", AttentionConfig())
    shard_model(model, ranks, barrier=barrier, dtype=torch.float32)
    clock = StepClock(ranks.device)
    time_collectives(model, clock)
    tokens = torch.zeros(1, NUM_TOKENS, dtype=torch.long)
    times = []
    for _ in range(NUM_WARMUP + NUM_MEASURED):
        dist.barrier()
        clock.start()
        model(input_ids=tokens, use_cache=False).logits.sum().backward()
        times.append(clock.waiting_ms)
    return times[NUM_WARMUP:]


def main() -> None:
    """Writes a line for each barrier."""
    torch.set_num_threads(1)
    ranks = start_ranks(wanted=2, device="cpu")
    for barrier in Barrier:
        p20, median, p80 = np.quantile(collective_ms(ranks, barrier), [0.2, 0.5, 0.8])
        if ranks.rank == 0:
            sys.stdout.write(f"{barrier}: {median:.1f} ms ({p20:.1f} to {p80:.1f})\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
