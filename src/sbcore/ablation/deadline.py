"""The time that is left, shared out over settings; all ranks agree, since rank 0 decides."""

import time
from itertools import pairwise

import torch
import torch.distributed as dist


class Deadline:
    """So many seconds from now. Host clocks only: asking never waits for the device."""

    def __init__(self, seconds: float, *, group: dist.ProcessGroup) -> None:
        self._end = time.monotonic() + seconds
        self._group = group

    def share(self, part: float) -> "Share":
        """Returns this part, 0..1, of what is left, beginning now."""
        now = time.monotonic()
        return Share(now + (self._end - now) * part, self._group)


class Share:
    """The time of one setting, asked before each round."""

    def __init__(self, end: float, group: dist.ProcessGroup) -> None:
        self._end, self._group = end, group
        self._asked: list[float] = []

    def may_begin(self) -> bool:
        """Returns whether there is time for a round, by rank 0's clock.

        It is expected to take as long as the longest but the first, which warms up: lengths differ
        from round to round, and a round that is cut off is lost.
        """
        self._asked.append(time.monotonic())
        taken = [after - before for before, after in pairwise(self._asked)]
        expected = max(taken[1:], default=0.0)
        answer = torch.tensor([self._asked[-1] + expected <= self._end])
        dist.broadcast(answer, src=0, group=self._group)
        return bool(answer)
