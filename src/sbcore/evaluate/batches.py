"""Which prompts are generated together."""

from collections.abc import Sequence

from sbcore.evaluate.prompts import Prompt


def make_batches(
    prompts: Sequence[Prompt], *, batch_size: int, batch_tokens: int
) -> list[list[int]]:
    """Returns the indices of prompts in batches of like lengths, longest first.

    A batch has at most ``batch_tokens`` together, and twice as many when each prompt is counted
    with the batch's longest, as the cache holds them; a longer prompt goes alone. What does not fit
    into memory so fails at once. The batches depend on the prompts alone: a resumed run, and any
    number of ranks, compute the same numbers.
    """
    lengths = [len(prompt.ids) for prompt in prompts]
    batches: list[list[int]] = []
    for index in sorted(range(len(prompts)), key=lambda index: -lengths[index]):
        if not batches or not _fits(
            [lengths[i] for i in (*batches[-1], index)], batch_size, batch_tokens
        ):
            batches.append([])
        batches[-1].append(index)
    return batches


def _fits(lengths: Sequence[int], batch_size: int, batch_tokens: int) -> bool:
    padded = len(lengths) * lengths[0]
    return (
        len(lengths) <= batch_size and sum(lengths) <= batch_tokens and padded <= 2 * batch_tokens
    )
