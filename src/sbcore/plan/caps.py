"""Micro-batches being filled under the token cap and the sequence cap."""

from bisect import bisect_left, insort
from collections.abc import Sequence

from sbcore.types import Topology


class OpenMicroBatches:
    """Micro-batches, by number; ``members[b]`` lists what is in b."""

    def __init__(self, num_micro_batches: int, lengths: Sequence[int], topology: Topology) -> None:
        self.lengths = lengths
        self.max_tokens = topology.max_tokens
        self.max_sequences = topology.max_sequences or len(lengths)
        self.tokens = [0] * num_micro_batches
        self.members: list[list[int]] = [[] for _ in range(num_micro_batches)]

    def fits(self, micro_batch: int, sequence: int) -> bool:
        """Returns whether the sequence may join; an empty micro-batch takes even a long one."""
        members = self.members[micro_batch]
        if not members:
            return True
        if len(members) >= self.max_sequences:
            return False
        return self.tokens[micro_batch] + self.lengths[sequence] <= self.max_tokens

    def is_full(self, micro_batch: int) -> bool:
        """Returns whether no sequence at all may join."""
        members = self.members[micro_batch]
        return bool(members) and (
            len(members) >= self.max_sequences or self.tokens[micro_batch] >= self.max_tokens
        )

    def try_add(self, micro_batch: int, sequence: int) -> bool:
        """Puts the sequence into the micro-batch if it fits; returns whether it did.

        One call for two: planning large jobs is little else.
        """
        members, tokens = self.members[micro_batch], self.tokens[micro_batch]
        tokens += self.lengths[sequence]
        if members and (tokens > self.max_tokens or len(members) >= self.max_sequences):
            return False
        members.append(sequence)
        self.tokens[micro_batch] = tokens
        return True

    def add(self, micro_batch: int, sequence: int) -> None:
        """Puts the sequence into the micro-batch."""
        self.members[micro_batch].append(sequence)
        self.tokens[micro_batch] += self.lengths[sequence]


def keeps_caps(members: Sequence[int], lengths: Sequence[int], topology: Topology) -> bool:
    """Returns whether these sequences may be one micro-batch; a single one always may."""
    if len(members) < 2:
        return True
    few = not topology.max_sequences or len(members) <= topology.max_sequences
    return few and sum(lengths[i] for i in members) <= topology.max_tokens


def pack_in_order(
    sequences: Sequence[int], lengths: Sequence[int], topology: Topology
) -> list[list[int]]:
    """Returns micro-batches filled in the order given; a new one opens when the last is full."""
    opened = OpenMicroBatches(1, lengths, topology)
    for sequence in sequences:
        last = len(opened.members) - 1
        if not opened.fits(last, sequence):
            opened.tokens.append(0)
            opened.members.append([])
            last += 1
        opened.add(last, sequence)
    return [members for members in opened.members if members]


def pack_best_fit(
    sequences: Sequence[int], lengths: Sequence[int], topology: Topology
) -> list[list[int]]:
    """Returns few micro-batches: longest first into the fullest one that fits."""
    members: list[list[int]] = []
    free: list[tuple[int, int]] = []  # tokens left and micro-batch, rising
    for sequence in sorted(sequences, key=lambda i: (-lengths[i], i)):
        length = lengths[sequence]
        at = bisect_left(free, (length, -1))
        if at < len(free):
            left, chosen = free.pop(at)
        else:
            left, chosen = topology.max_tokens, len(members)
            members.append([])
        members[chosen].append(sequence)
        if left > length and len(members[chosen]) != topology.max_sequences:
            insort(free, (left - length, chosen))
    return members


def min_micro_batches(lengths: Sequence[int], topology: Topology) -> int:
    """Returns a number of micro-batches per rank that no layout can go below, at least 1.

    Sequences over half the cap never share a micro-batch; the tokens of the others need room.
    """
    cap, most = topology.max_tokens, topology.max_sequences
    alone = sum(1 for length in lengths if length > cap)
    tokens = sum(length for length in lengths if length <= cap)
    needed = [
        1,
        alone + -(-tokens // cap),
        sum(1 for length in lengths if 2 * length > cap),
        alone + -(-(len(lengths) - alone) // most) if most else 0,
    ]
    return -(-max(needed) // topology.num_ranks)
