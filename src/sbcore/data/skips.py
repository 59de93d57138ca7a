"""What happens to records that cannot be used: the first one ends the run, or they are counted."""

from collections import Counter
from typing import Literal

from sbcore.data.records import BadRecord


class Skips:
    """Counts what was left out, by reason, or raises at once (``data.on_bad_line``)."""

    def __init__(self, policy: Literal["error", "skip"]) -> None:
        self._policy = policy
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        """Records left out, by reason."""
        return dict(sorted(self._counts.items()))

    def add(self, error: BadRecord) -> None:
        """Counts the record, or raises the error."""
        if self._policy == "error":
            raise error
        self._counts[error.reason] += 1

    def add_fault(self, reason: str, *, place: str, fault: str, remedy: str) -> None:
        """Counts the record, or raises ``place: fault. remedy`` with the option to skip."""
        message = f"{place}: {fault}. {remedy}, or set data.on_bad_line to skip."
        self.add(BadRecord(reason, message))
