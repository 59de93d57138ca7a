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
from sbcore.ablation.rounds import run_rounds
from sbcore.ablation.settings import Setting
from sbcore.ablation.steps import MeasuredStep


@dataclass(frozen=True)
class Comparison:
    """What a start consists of; ``numbers`` are those of the rounds, warm-up first."""

    settings: Sequence[Setting]
    variants: Sequence[str]
    workshop: Workshop
    deadline: Deadline
    numbers: range
    output: Output | None
    """Of rank 0."""

    def run(self) -> None:
        """Measures every setting; a model is made anew where the barrier changes."""
        left = len(self.settings)
        for _, members in groupby(self.settings, key=lambda setting: setting.barrier):
            group = list(members)
            shared = self._shared(group[0])
            for setting in group:
                self._measure(setting, shared, self.deadline.share(left))
                left -= 1
            del shared  # its memory is the next one's

    def _shared(self, setting: Setting) -> SharedModel:
        """Returns the barrier's model, its host floor noted."""
        workshop = self._workshop(setting)
        shared = workshop.share_model()
        floor_ms = workshop.floor_ms(shared, workshop.config.baseline)
        if self.output is not None:
            self.output.manifest.note({f"host_floor_ms.{setting.barrier}": floor_ms})
            say(f"barrier {setting.barrier}: a short micro-batch takes {floor_ms:.1f} ms")
        return shared

    def _measure(self, setting: Setting, shared: SharedModel, share: Share) -> None:
        started, workshop = time.perf_counter(), self._workshop(setting)
        trainers = {
            name: workshop.trainer(shared, name, setting.data.lengths) for name in self.variants
        }
        # Looking through all objects of all libraries stops a rank in the middle of a step.
        gc.collect()
        gc.freeze()
        steps = run_rounds(
            trainers,
            self.numbers,
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

    def _workshop(self, setting: Setting) -> Workshop:
        config = setting.config(
            self.workshop.config,
            num_ranks=self.workshop.ranks.world_size,
            num_rounds=self.numbers.stop,
        )
        return self.workshop.of(config)
