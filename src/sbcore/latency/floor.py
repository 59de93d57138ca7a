"""The ranks that measure whole micro-batches, started by `sbcore.latency.launch` under torchrun.

``python -m torch.distributed.run ... -m sbcore.latency.start FOLDER`` waits for FOLDER/work.json.
Rank 0 says when it is through with a micro-batch, and writes FOLDER/result.json in the end.
"""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from transformers import Qwen2Config

from sbcore.artifacts import read_json, write_json
from sbcore.config.stages import ProfileLatencyStage
from sbcore.errors import SparseBalanceError
from sbcore.latency.architecture import read_architecture
from sbcore.latency.as_trained import train_config
from sbcore.latency.launch import DONE, RESULT, WORK
from sbcore.latency.micro_batches import ROUNDS, MicroBatch, rounds_of, runs_of
from sbcore.latency.ranks import MeasuringRanks
from sbcore.latency.table import GridPoint, MeasuredPoint
from sbcore.latency.whole import FirstRun, WholeRuns
from sbcore.model.assemble import assemble
from sbcore.model.build import empty_model

if TYPE_CHECKING:
    from collections.abc import Sequence

_SEED = 0
"""Of weights, input and order; times do not depend on them."""

_POLL_SECONDS = 0.05

_UPDATE, _UPDATES = GridPoint("optimizer", 0, 0, 1, held_out=False, recompute=False), 3

_MARGIN = 1.25
"""Peaks may begin to grow only where activations pass what else a micro-batch needs."""

_ROOM = 0.93
"""Share of the free memory that a micro-batch may be expected to take."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """Peaks seen so far in one setting of recomputation, short micro-batches first.

    The shortest one's is what every micro-batch needs, whose part that grows is not known yet.
    """

    tokens: int = 0
    gib: float = 0.0
    gib_per_token: float = 0.0

    def expects(self, num_tokens: int) -> float:
        """Returns a guess at a longer micro-batch's peak that is rather too high."""
        return self.gib + _MARGIN * self.gib_per_token * (num_tokens - self.tokens)

    def with_peak(self, num_tokens: int, gib: float) -> "Weighed":
        """Returns what is known after another peak; nearly equal lengths tell nothing of growth."""
        grown, slope = num_tokens - self.tokens, self.gib_per_token
        if self.tokens and 10 * grown > self.tokens:
            slope = max(gib - self.gib, 0.0) / grown
        return Weighed(num_tokens, max(gib, self.gib), slope)


def main() -> None:
    """Measures; bad input is one line in the result and exit code 2."""
    folder = Path(sys.argv[1])
    work = _wait_for_work(folder)
    stage = ProfileLatencyStage.model_validate(work["stage"])
    torch.set_num_threads(stage.threads)
    ranks = MeasuringRanks.start(work["device_type"])
    try:
        result = _measure(stage, ranks, work)
    except SparseBalanceError as error:
        result = {"error": str(error)}
    finally:
        dist.destroy_process_group()
    if ranks.rank == 0:
        write_json(folder / RESULT, result)
    sys.exit(2 if "error" in result else 0)


def _wait_for_work(folder: Path) -> Any:
    """Returns the work once it is there; ends when whoever started us is gone."""
    empty_model(Qwen2Config(num_hidden_layers=1), dtype=torch.bfloat16)  # imports what is large
    while not (folder / WORK).exists():
        if not folder.exists():
            sys.exit(1)
        time.sleep(_POLL_SECONDS)
    return read_json(folder / WORK)


def _measure(
    stage: ProfileLatencyStage, ranks: MeasuringRanks, work: dict[str, Any]
) -> dict[str, Any]:
    model_dir = None if work["model_dir"] is None else Path(work["model_dir"])
    architecture = read_architecture(stage, model_dir, vocab_size=work["vocab_size"])
    model = assemble(
        architecture,
        stage.model,
        train_config(stage, weighs=ranks.device.type == "cuda"),
        mesh=ranks.mesh(),
        barrier=stage.barrier,
        weights=None,
        seed=_SEED,
    )
    generator = torch.Generator(ranks.device).manual_seed(_SEED)
    runs = WholeRuns(stage, ranks, model, architecture.vocab_size, generator)
    wanted = [MicroBatch.read(one) for one in work["micro_batches"]]
    optimizer = runs.make_optimizer()  # kept: its state lies on the device in training too
    updates = ranks.mean(runs.update_times(wanted[0], optimizer, _UPDATES))
    points = [MeasuredPoint.of(_UPDATE, np.array(updates), peak_gib=None)]
    first = _warm_up(runs, wanted)
    times = _rounds(runs, first)
    points += [
        MeasuredPoint.of(one.point, np.array(times[one]), peak_gib=first[one].peak_gib)
        for one in first
    ]
    return {
        "points": [asdict(point) for point in points],
        "skipped": [asdict(one) for one in wanted if one not in first],
        "model_gib": _model_gib(ranks),
    }


def _warm_up(runs: WholeRuns, wanted: "Sequence[MicroBatch]") -> dict[MicroBatch, FirstRun]:
    """Runs each once, short ones first; returns what was seen of those that fit into memory."""
    found: dict[MicroBatch, FirstRun] = {}
    seen = {False: Weighed(), True: Weighed()}
    for one in sorted(wanted, key=lambda one: one.num_tokens):
        weighed, free = seen[one.recompute], runs.free_gib()
        too_much = free is not None and weighed.expects(one.num_tokens) > _ROOM * free
        if runs.ranks.most(float(too_much)):
            continue
        found[one] = runs.once(one)
        peak = found[one].peak_gib
        if peak is not None:
            seen[one.recompute] = weighed.with_peak(one.num_tokens, peak)
        _tell(runs.ranks)
    return found


def _rounds(runs: WholeRuns, first: dict[MicroBatch, FirstRun]) -> dict[MicroBatch, list[float]]:
    """Returns every micro-batch's times: in rounds, each in another order, so drifts average.

    What is only weighed has the time of its first run.
    """
    timed = [one for one in first if one.part != "memory"]
    times = {one: [] if one in timed else [first[one].ms] for one in first}
    share_ms = 1e3 * runs.config.latency.micro_batch_seconds / (2 * len(timed))
    for number in range(ROUNDS):
        for i in np.random.default_rng(number).permutation(len(timed)):
            one = timed[i]
            if number < rounds_of(first[one].ms):
                num = _repeats(first[one].ms, share_ms / ROUNDS, runs.config.latency.max_repeats)
                times[one] += runs.ranks.mean(runs.times(one, num))
            _tell(runs.ranks)
    return times


def _repeats(once_ms: float, share_ms: float, max_repeats: int) -> int:
    """Returns the counted runs of a round that may take so long."""
    least = max(runs_of(once_ms) - 1, 1)
    return int(np.clip(share_ms / once_ms, least, max(max_repeats // ROUNDS, least)))


def _model_gib(ranks: MeasuringRanks) -> float | None:
    """Returns what weights, gradients and optimizer take of each device between micro-batches."""
    if ranks.device.type != "cuda":
        return None
    return ranks.most(torch.cuda.memory_allocated(ranks.device) / 1024.0**3)


def _tell(ranks: MeasuringRanks) -> None:
    if ranks.rank == 0:
        sys.stdout.write(f"{DONE}\n")
        sys.stdout.flush()
