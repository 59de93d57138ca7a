"""Which prompts are generated together."""

from collections.abc import Sequence

from sbcore.evaluate.prompts import Prompt


def make_batches(
    prompts: Sequence[Prompt], *, batch_size: int, batch_tokens: int
) -> list[list[int]]:
    """Returns the indices of prompts in batches of like lengths, longest first.

    A batch has at most ``batch_tokens`` together; a longer prompt goes alone. What does not fit
    into memory so fails at once. The batches depend on the prompts alone: a resumed run, and any
    number of ranks, compute the same numbers.
    """
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index].ids))
    batches: list[list[int]] = []
    room = 0
    for index in order:
        length = len(prompts[index].ids)
        if not batches or len(batches[-1]) == batch_size or length > room:
            batches.append([])
            room = batch_tokens
        batches[-1].append(index)
        room -= length
    return batches
