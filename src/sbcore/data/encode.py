"""Rendered texts to token ids and loss mask.

n tokens of a sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbcore.data.render import Rendered, Span


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sample: ``tokens`` uint32 [n]; ``is_target`` bool [n], whether a token is to be predicted.

    The first token has nothing before it, so it is never a target.
    """

    tokens: NDArray[np.uint32]
    is_target: NDArray[np.bool_]


def encode(texts: Sequence[Rendered], tokenizer: Any) -> list[Encoded]:
    """Returns the tokens of texts that agree in ``with_special_tokens``, tokenized together."""
    batch = tokenizer(
        [rendered.text for rendered in texts],
        add_special_tokens=texts[0].with_special_tokens,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return [
        _encoded(ids, offsets, rendered.spans)
        for ids, offsets, rendered in zip(
            batch["input_ids"], batch["offset_mapping"], texts, strict=True
        )
    ]


def _encoded(ids: list[int], offsets: list[Span], spans: list[Span]) -> Encoded:
    is_target = overlaps(np.array(offsets, dtype=np.int64).reshape(-1, 2), spans)
    is_target[:1] = False
    return Encoded(np.array(ids, dtype=np.uint32), is_target)


def overlaps(offsets: NDArray[np.int64], spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Returns which character ranges [n, 2] share a character with one of the rising spans.

    A token across a span's border counts, and so does each of several tokens of one character.
    """
    if not spans:
        return np.zeros(len(offsets), dtype=bool)
    starts, ends = np.array(spans, dtype=np.int64).T
    # The first span that ends after the token's start is the only candidate of the earliest start.
    candidate = np.searchsorted(ends, offsets[:, 0], side="right")
    reached = np.append(starts, np.iinfo(np.int64).max)[candidate]
    shares: NDArray[np.bool_] = (offsets[:, 1] > reached) & (offsets[:, 1] > offsets[:, 0])
    return shares
