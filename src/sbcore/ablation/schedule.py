"""Which rounds are left of every setting, and how the time is shared out over settings.

A start goes on behind what its folder holds already, measured with the same configuration: the
same command again and again fills every setting up.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch.distributed as dist

from sbcore.ablation.output import Output
from sbcore.ablation.settings import Setting
from sbcore.ablation.steps import MeasuredStep
from sbcore.train.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Stretch:
    """A setting and the numbers of its rounds in this start, warm-up first."""

    setting: Setting
    numbers: range

    @property
    def num_tokens(self) -> float:
        """Tokens to expect in a step of every round: what time is shared out by."""
        each = float(self.setting.data.lengths.mean())
        return each * self.setting.global_batch * len(self.numbers)


def stretches(
    wanted: Sequence[Setting],
    variants: Sequence[str],
    *,
    num_rounds: int,
    num_warmup: int,
    ranks: Ranks,
    output: Output | None,
) -> list[Stretch]:
    """Returns what is left to do; settings that have their rounds are left out.

    Rank 0, which has ``output``, looks into the folder and tells the others.
    """
    found = [[]] if output is None else [[output.earlier(setting) for setting in wanted]]
    begun = [[_begun(steps, variants) for steps in found[0]]]
    dist.broadcast_object_list(begun, src=0, group=ranks.host_group)
    return [
        Stretch(setting, range(first, first + num_warmup + num_rounds - done))
        for setting, (first, done) in zip(wanted, begun[0], strict=True)
        if done < num_rounds
    ]


def shares(parts: Sequence[Stretch]) -> Iterator[tuple[Stretch, float]]:
    """Yields each part with its share of the time that is left when it begins."""
    left = sum(part.num_tokens for part in parts)
    for part in parts:
        yield part, part.num_tokens / left
        left -= part.num_tokens


def _begun(steps: Sequence[MeasuredStep], variants: Sequence[str]) -> tuple[int, int]:
    """Returns the first round that is free, and how many all variants have measured."""
    first = max((step.round + 1 for step in steps), default=0)
    counts = _counts(steps)
    return first, min(counts.get(variant, 0) for variant in variants)


def _counts(steps: Sequence[MeasuredStep]) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for step in steps:
        counts[step.variant] = counts.get(step.variant, 0) + step.measured
    return counts
