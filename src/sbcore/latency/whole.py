"""Whole micro-batches on one rank, run as training runs them, timed and weighed.

The model is `sbcore.model.assemble`'s, that of training. On a GPU times are taken between events of
the compute stream and nothing waits in between, so that a short micro-batch takes what the host
needs to launch it, as inside a step.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch

from sbcore.attention.call import AttentionCall
from sbcore.config.stages import ProfileLatencyStage
from sbcore.latency.layer import TARGET_STRIDE, Batch, attention_call
from sbcore.latency.micro_batches import MicroBatch
from sbcore.latency.ranks import MeasuringRanks
from sbcore.latency.table import KNOWN
from sbcore.latency.timing import CYCLES_PER_MS, Run, host_clock
from sbcore.model.assemble import TrainableModel
from sbcore.model.shard import synchronise_gradients
from sbkernels.moba.dense import prefer_fastest_dense

_GIB = 1024.0**3

_NEVER, _ALWAYS = 2**62, -1
"""Tokens above which layers are recomputed."""

_UPDATE_LEAD_MS = 100
"""What launching an update takes the host at most; sharded weights cost it 13 ms and more."""


@dataclass(frozen=True, slots=True)
class FirstRun:
    """What the first run of a micro-batch took; no peak on a CPU."""

    ms: float
    peak_gib: float | None


@dataclass(frozen=True)
class _Prepared:
    """A micro-batch with its input on the device."""

    micro_batch: MicroBatch
    batch: Batch
    call: AttentionCall


@dataclass
class WholeRuns:
    """Runs micro-batches of one configuration."""

    config: ProfileLatencyStage
    ranks: MeasuringRanks
    model: TrainableModel
    vocab_size: int
    generator: torch.Generator

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Returns training's optimizer at a rate that changes nothing."""
        return torch.optim.AdamW(self._trained, lr=0.0, fused=True)

    def update_times(
        self, one: MicroBatch, optimizer: torch.optim.Optimizer, num: int
    ) -> list[float]:
        """Returns the milliseconds of updates, each after a micro-batch whose gradients meet.

        A GPU idles until the host has launched the update: behind long micro-batches, as steps end
        with, launching it takes no time of the GPU's.
        """
        times, work = [], self._prepared(one)
        for _ in range(num + 1):  # the first one makes the optimizer's state
            self._run(work, last=True)
            if self._cuda:
                torch.cuda._sleep(_UPDATE_LEAD_MS * CYCLES_PER_MS)
            times.append(self._timed(partial(self._update, optimizer)))
        return times[1:]

    def _update(self, optimizer: torch.optim.Optimizer) -> None:
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _timed(self, run: Run) -> float:
        """Returns the milliseconds that the device takes for it, on a CPU the host."""
        if not self._cuda:
            clock = host_clock()
            started = clock()
            run()
            return 1e3 * (clock() - started)
        before = self._mark()
        run()
        after = self._mark()
        self._synchronize()
        return float(before.elapsed_time(after))

    def once(self, one: MicroBatch) -> FirstRun:
        """Runs a micro-batch once; returns its time and its peak, those of the slowest rank."""
        work, clock = self._prepared(one), host_clock()
        self.ranks.meet()
        before = self._reset_peak()
        started = clock()
        self._run(work, last=False)
        self._synchronize()
        ms = self.ranks.most(1e3 * (clock() - started))
        if before is None:
            return FirstRun(ms, None)
        peak = torch.cuda.max_memory_allocated(self.ranks.device) - before
        return FirstRun(ms, self.ranks.most(peak / _GIB))

    def free_gib(self) -> float | None:
        """Returns the device's memory that the model does not take; None on a CPU."""
        if not self._cuda:
            return None
        free, _ = torch.cuda.mem_get_info(self.ranks.device)
        cached = torch.cuda.memory_reserved(self.ranks.device)
        return (free + cached - torch.cuda.memory_allocated(self.ranks.device)) / _GIB

    def times(self, one: MicroBatch, num: int) -> list[float]:
        """Returns the milliseconds of runs one after the other.

        One before several is not counted: the device stands still until the host has launched it.
        """
        work = self._prepared(one)
        self.ranks.meet()
        if num > 1:
            self._run(work, last=False)
        if not self._cuda:
            return self._host_times(work, num)
        marks = [self._mark()]
        for _ in range(num):
            self._run(work, last=False)
            marks.append(self._mark())
        self._synchronize()
        return [a.elapsed_time(b) for a, b in pairwise(marks)]

    def _host_times(self, work: _Prepared, num: int) -> list[float]:
        clock, times = host_clock(), []
        for _ in range(num):
            started = clock()
            self._run(work, last=False)
            times.append(1e3 * (clock() - started))
        return times

    def _run(self, work: _Prepared, *, last: bool) -> None:
        """Runs forward and backward, as a step's last micro-batch or one before.

        Nothing here may wait for the device: all input is there already.
        """
        synchronise_gradients(self.model.module, barrier=self.config.barrier, last=last)
        self.model.recompute.above_tokens = _ALWAYS if work.micro_batch.recompute else _NEVER
        work.call.keep_choices = self.model.recompute.prepare(work.micro_batch.num_tokens)
        with prefer_fastest_dense():
            loss = self.model.module(**vars(work.batch), sb_call=work.call)
            (loss * (TARGET_STRIDE / work.micro_batch.num_tokens)).backward()

    def _prepared(self, one: MicroBatch) -> _Prepared:
        batch = Batch.random(one.lengths, self.vocab_size, self.generator)
        known, device = one.part in KNOWN, self.ranks.device
        call = attention_call(one.lengths, one.top_k, self.config, known=known, device=device)
        return _Prepared(one, batch, call)

    @property
    def _trained(self) -> list[torch.nn.Parameter]:
        return [p for p in self.model.module.parameters() if p.requires_grad]

    @property
    def _cuda(self) -> bool:
        return self.ranks.device.type == "cuda"

    def _reset_peak(self) -> int | None:
        """Returns the bytes on the device, from where on the peak is counted; None on a CPU."""
        if not self._cuda:
            return None
        torch.cuda.reset_peak_memory_stats(self.ranks.device)
        return torch.cuda.memory_allocated(self.ranks.device)

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _synchronize(self) -> None:
        if self._cuda:
            torch.cuda.synchronize(self.ranks.device)
