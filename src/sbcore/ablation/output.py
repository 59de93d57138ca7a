"""What rank 0 leaves of a comparison: files after every setting, lines and tables meanwhile."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sbcore.ablation.manifest import Manifest, same_configuration
from sbcore.ablation.results import Results
from sbcore.ablation.settings import Setting
from sbcore.ablation.show import print_setting
from sbcore.ablation.steps import MeasuredStep
from sbcore.ablation.table import Place


@dataclass(frozen=True)
class Output:
    """The files of one start."""

    results: Results
    manifest: Manifest
    device: str
    shape: str
    baseline: str

    def earlier(self, setting: Setting) -> list[MeasuredStep]:
        """Returns the setting's steps of earlier starts with the same configuration."""
        ours = self._place(setting)
        return [
            step
            for place, steps in self.results.steps().items()
            if replace(place, run_id=ours.run_id) == ours
            and same_configuration(place.run_id, ours.run_id)
            for step in steps
        ]

    def note(self, setting: Setting, steps: Sequence[MeasuredStep]) -> None:
        """Writes steps down at once, in case that the start does not get to its end."""
        self.results.journal.add(self._place(setting), steps)

    def add(self, setting: Setting, steps: Sequence[MeasuredStep], *, seconds: float) -> None:
        """Writes and prints a setting."""
        place = self._place(setting)
        rounds = len({step.round for step in steps if step.measured})
        self.results.add(place, steps)
        busy = sum(step.step_ms for step in steps) / 1e3
        self.manifest.add_setting(
            {
                "words": setting.words,
                "rounds": rounds,
                "seconds": round(seconds, 1),
                "seconds_of_steps": round(busy, 1),
            }
        )
        say(f"{setting.words}: {rounds} measured rounds in {seconds:.0f} s")
        print_setting(place, steps, baseline=self.baseline)

    def _place(self, setting: Setting) -> Place:
        return Place(
            device=self.device,
            shape=self.shape,
            lengths=setting.data.name,
            barrier=setting.barrier.value,
            global_batch=setting.global_batch,
            run_id=self.manifest.run_id,
        )


def say(line: str) -> None:
    """Writes a line to stderr."""
    sys.stderr.write(f"ablation: {line}\n")
