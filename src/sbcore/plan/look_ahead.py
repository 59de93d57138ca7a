"""Regroups several global batches by length, so that long sequences meet in the same steps.

A CHANGE OF SAMPLING, off unless asked for: which samples share an optimizer step then depends on
their lengths. Every sample still comes once per epoch, every global batch keeps its number of
samples, and its tokens stay within a band around the mean of the batches regrouped together, or
nearer to it than they were drawn.
It pays where the longest sequence is more than a rank's share: one step waits for two long
sequences at the price of one. Knows nothing of ranks, so any number of them sees the same batches.
"""

import numpy as np

from sbcore.types import IntArray


def regrouped(drawn: list[IntArray], lengths: IntArray, *, token_band: float) -> list[IntArray]:
    """Returns as many global batches of the same samples; drawn ones must be of equal size.

    From the longest sequences down, each batch takes as many of the longest as the band allows
    and fills up with the shortest; swaps then level what is outside the band. Where that does not
    get it inside, and the drawn batches were nearer, those stay.
    """
    size, order = len(drawn[0]), np.concatenate(drawn)
    pool = order[np.argsort(-lengths[order], kind="stable")]
    mean = float(lengths[pool].sum()) / len(drawn)
    batches = []
    for later in range(len(drawn) - 1, 0, -1):
        num_longest = _num_longest(lengths[pool], size, later, mean=mean, token_band=token_band)
        rest = len(pool) - (size - num_longest)
        batches.append(np.concatenate([pool[:num_longest], pool[rest:]]))
        pool = pool[num_longest:rest]
    found = np.stack([*batches, pool])
    _level(found, lengths, most=token_band * mean)
    outside = max(token_band * mean, _farthest(np.stack(drawn), lengths))
    return list(found) if _farthest(found, lengths) <= outside else drawn


def _farthest(batches: IntArray, lengths: IntArray) -> float:
    """Returns how far a batch's tokens are from the mean at most."""
    tokens = lengths[batches].sum(axis=1)
    return float(np.abs(tokens - tokens.mean()).max())


def _level(batches: IntArray, lengths: IntArray, *, most: float) -> None:
    """Swaps samples of the batches with most and fewest tokens until all are within `most`."""
    for _ in range(batches.size):
        tokens = lengths[batches].sum(axis=1)
        full, empty = int(tokens.argmax()), int(tokens.argmin())
        if np.abs(tokens - tokens.mean()).max() <= most:
            return
        less = lengths[batches[full]][:, None] - lengths[batches[empty]]  # by each swap
        after = np.abs(tokens[full] - tokens[empty] - 2 * less)
        out, back = np.unravel_index(int(after.argmin()), after.shape)
        if after[out, back] >= tokens[full] - tokens[empty]:
            return
        batches[full, out], batches[empty, back] = batches[empty, back], batches[full, out]


def _num_longest(
    lengths: IntArray, size: int, later: int, *, mean: float, token_band: float
) -> int:
    """Returns how many of the longest a batch takes, at least 1; lengths fall.

    As many as keep the batch below the band's upper end, and leave the batches still to come
    enough to reach the lower one.
    """
    sums = np.concatenate([[0], np.cumsum(lengths)])
    longest = np.arange(size + 1)
    tokens = sums[longest] + sums[-1] - sums[len(lengths) - size + longest]
    most = min((1.0 + token_band) * mean, sums[-1] - later * (1.0 - token_band) * mean)
    return max(int(np.searchsorted(tokens, most, side="right")) - 1, 1)
