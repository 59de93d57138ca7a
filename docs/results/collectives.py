"""What the collectives of one micro-batch take when no rank is late: transfer, not waiting.

torchrun --standalone --nproc-per-node 2 docs/results/collectives.py
"""

import sys

import numpy as np
import torch
import torch.distributed as dist

from sbcore.attention.call import AttentionCall
from sbcore.config.training import ModelConfig, ModelShape, TrainConfig
from sbcore.model.assemble import assemble
from sbcore.model.build import shape_config
from sbcore.train.clock import make_clock
from sbcore.train.ranks import Ranks, start_ranks
from sbcore.types import Barrier

VOCAB_SIZE, NUM_TOKENS, NUM_WARMUP, NUM_MEASURED = 1192, 16, 10, 50


def collective_ms(ranks: Ranks, barrier: Barrier) -> list[float]:
    """Returns the time in collectives of equal micro-batches that all ranks begin together."""
    config = shape_config(ModelShape(), vocab_size=VOCAB_SIZE, max_tokens=512)
    made = assemble(
        config,
        ModelConfig(),
        TrainConfig(),
        mesh=ranks.mesh(),
        barrier=barrier,
        weights=None,
        seed=0,
    )
    clock = make_clock(made.module, ranks.device)
    tokens = torch.zeros(1, NUM_TOKENS, dtype=torch.long)
    ends = torch.tensor([0, NUM_TOKENS], dtype=torch.int32)
    call = AttentionCall(ends, (NUM_TOKENS,), block_size=32, backend="auto", budgets=None)
    times = []
    for _ in range(NUM_WARMUP + NUM_MEASURED):
        dist.barrier()
        clock.start()
        with clock.micro_batch():
            made.module(
                input_ids=tokens,
                position_ids=torch.arange(NUM_TOKENS)[None],
                predict_at=tokens[0],
                labels=tokens[0],
                sb_call=call,
            ).backward()
        times.append(clock.finish().read().spans[0].waiting_ms)
    return times[NUM_WARMUP:]


def main() -> None:
    """Writes a line for each barrier."""
    torch.set_num_threads(1)
    ranks = start_ranks(wanted=2, device="cpu")
    for barrier in (Barrier.STEP, Barrier.MICRO):
        p20, median, p80 = np.quantile(collective_ms(ranks, barrier), [0.2, 0.5, 0.8])
        if ranks.rank == 0:
            sys.stdout.write(f"{barrier}: {median:.1f} ms ({p20:.1f} to {p80:.1f})\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
