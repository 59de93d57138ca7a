"""All settings of one start, one after the other, each with all its variants in turn."""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from sbcore.ablation.building import SharedModel, Workshop
from sbcore.ablation.deadline import Deadline, Share
from sbcore.ablation.output import Output, say
from sbcore.ablation.rehearsal import Rehearsals
from sbcore.ablation.rounds import run_rounds
from sbcore.ablation.schedule import Stretch, shares
from sbcore.ablation.settings import Setting
from sbcore.ablation.steps import MeasuredStep


@dataclass(frozen=True)
class Comparison:
    """What a start consists of."""

    stretches: Sequence[Stretch]
    variants: Sequence[str]
    workshop: Workshop
    deadline: Deadline
    output: Output | None
    """Of rank 0."""

    def run(self) -> None:
        """Measures every setting; a model is made anew where the barrier changes."""
        for _, members in groupby(shares(self.stretches), key=lambda s: s[0].setting.barrier):
            shared, rehearsals = None, Rehearsals()
            for stretch, part in members:
                share = self.deadline.share(part)
                shared = shared or self._shared(stretch, rehearsals)
                self._measure(stretch, shared, share, rehearsals)
            del shared  # its memory is the next one's

    def _shared(self, stretch: Stretch, rehearsals: Rehearsals) -> SharedModel:
        """Returns the barrier's model, its largest micro-batches tried, its host floor noted."""
        workshop, setting = self._workshop(stretch), stretch.setting
        shared = workshop.share_model()
        rehearsals.run(
            workshop.trainer(shared, name, setting.data.lengths) for name in self.variants
        )
        floor_ms = workshop.floor_ms(shared, workshop.config.baseline)
        if self.output is not None:
            self.output.manifest.note({f"host_floor_ms.{setting.barrier}": floor_ms})
            say(f"barrier {setting.barrier}: a short micro-batch takes {floor_ms:.1f} ms")
        return shared

    def _measure(
        self, stretch: Stretch, shared: SharedModel, share: Share, rehearsals: Rehearsals
    ) -> None:
        started, workshop = time.perf_counter(), self._workshop(stretch)
        setting = stretch.setting
        trainers = {
            name: workshop.trainer(shared, name, setting.data.lengths) for name in self.variants
        }
        rehearsals.run(trainers.values())
        # Looking through all objects of all libraries stops a rank in the middle of a step.
        gc.collect()
        gc.freeze()
        steps = run_rounds(
            trainers,
            stretch.numbers,
            num_warmup=workshop.config.train.warmup_steps_unmeasured,
            seed=workshop.config.seed,
            may_begin=share.may_begin,
            note=partial(self._note, setting),
        )
        gc.unfreeze()
        if self.output is not None:
            self.output.add(setting, steps, seconds=time.perf_counter() - started)

    def _note(self, setting: Setting, steps: Sequence[MeasuredStep]) -> None:
        if self.output is not None:
            self.output.note(setting, steps)

    def _workshop(self, stretch: Stretch) -> Workshop:
        config = stretch.setting.config(
            self.workshop.config,
            num_ranks=self.workshop.ranks.world_size,
            num_rounds=stretch.numbers.stop,
        )
        return self.workshop.of(config)
