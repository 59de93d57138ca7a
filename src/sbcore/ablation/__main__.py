"""``torchrun -m sbcore.ablation``: all variants in turn; leaves two csv files and a manifest.

This file only orders things; what a round is stands in `rounds`.
"""

import os
import sys

import torch
import torch.distributed as dist

from sbcore.ablation.arguments import (
    Arguments,
    chosen_variants,
    configured,
    parse_arguments,
    shape_name,
)
from sbcore.ablation.building import Workshop
from sbcore.ablation.ceilings import measure_ceilings
from sbcore.ablation.compare import Comparison
from sbcore.ablation.deadline import Deadline
from sbcore.ablation.manifest import Manifest
from sbcore.ablation.output import Output, say
from sbcore.ablation.results import Results
from sbcore.ablation.schedule import stretches
from sbcore.ablation.settings import Setting, check_setting, read_length_set, settings
from sbcore.ablation.table_in_use import differences, read_header, read_latency
from sbcore.config.schema import Config
from sbcore.device import device_name
from sbcore.errors import SparseBalanceError
from sbcore.train.complaint import complain
from sbcore.train.last_words import in_words
from sbcore.train.lock import alone_in
from sbcore.train.ranks import Ranks, start_ranks
from sbcore.train.signals import answering_signals


def main() -> None:
    """Runs the command; bad input, too little memory and full disks are one line and exit code 2.

    Who runs out of memory is the only rank that knows.
    """
    rank, arguments = os.environ.get("RANK", "0"), parse_arguments(None)
    try:
        _compare(arguments)
    except SparseBalanceError as error:
        complain(error)
        sys.exit(2)
    except torch.OutOfMemoryError as error:
        what = str(error).partition(". ")[0]
        sys.stderr.write(
            f"rank {rank}: {what}. lower train.recompute_above_tokens or topology.max_tokens, or "
            "start again: measured rounds are kept.\n"
        )
        sys.exit(2)
    except (OSError, RuntimeError) as error:
        reason = in_words(error, arguments.out)
        if reason is None:
            raise
        complain(SparseBalanceError(f"{reason}. start again: measured rounds are kept."))
        sys.exit(2)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _compare(arguments: Arguments) -> None:
    config = configured(arguments)
    variants = chosen_variants(config, arguments.variants)
    torch.set_num_threads(config.train.threads_per_rank)
    num_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    warmup = config.train.warmup_steps_unmeasured
    wanted = _settings(arguments, config)
    for setting in wanted:
        check_setting(setting, num_ranks=num_ranks, num_rounds=warmup + arguments.rounds)
    ranks = start_ranks(wanted=num_ranks, device=config.topology.device)
    deadline = Deadline(arguments.seconds, group=ranks.host_group)
    latency = read_latency(arguments.latency, config, device=device_name(ranks.device))
    workshop = Workshop(config, ranks, latency, arguments.latency)
    with alone_in(arguments.out, ranks.host_group), answering_signals(_end_by):
        output = _output(arguments, config, ranks)
        left = stretches(
            wanted,
            variants,
            num_rounds=arguments.rounds,
            num_warmup=warmup,
            ranks=ranks,
            output=output,
        )
        for part in left:
            check_setting(part.setting, num_ranks=num_ranks, num_rounds=part.numbers.stop)
        Comparison(left, variants, workshop, deadline, output).run()


def _end_by(name: str) -> None:
    """Says on rank 0 what a signal leaves."""
    if dist.get_rank() == 0:
        say(f"ended by {name}: measured rounds are kept, the same command goes on behind them")


def _settings(arguments: Arguments, config: Config) -> list[Setting]:
    longest = config.data.max_sample_tokens
    sets = [read_length_set(path, max_tokens=longest) for path in arguments.lengths]
    found = settings(sets, barriers=arguments.barriers, global_batches=arguments.global_batches)
    return list(found)


def _output(arguments: Arguments, config: Config, ranks: Ranks) -> Output | None:
    """Returns the files of the start with the machine's ceilings in them; None but on rank 0."""
    ceilings = measure_ceilings(ranks.device, world_size=ranks.world_size)
    if ranks.rank != 0:
        return None
    device = f"{ranks.world_size} x {device_name(ranks.device)}"
    manifest = Manifest(arguments, config, device=device)
    header = read_header(arguments.latency)
    different = list(differences(header, config))
    for line in different:
        say(line)
    manifest.note({"ceilings": ceilings, "latency": header, "latency_differences": different})
    return Output(
        Results(arguments.out),
        manifest,
        device=device,
        shape=shape_name(config.model.shape),
        baseline=config.baseline,
    )


if __name__ == "__main__":
    main()
