"""Short samples for the base model, all of one length in each step, so that nothing is padded.

B samples of L tokens; A answer positions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator

from sbcore.demo.tasks import TASKS
from sbcore.demo.text import Text

_MEDIAN_TOKENS, _SIGMA = 66, 0.5
_MIN_TOKENS, _MAX_TOKENS = 32, 160
_TOKENS_PER_QUESTION = 6  # half of a sample are questions: dense supervision is what bends


@dataclass(frozen=True, slots=True)
class BaseBatch:
    """Token ids and the answers among them.

    ``tokens`` [B, L]; ``before`` [A]: flat positions whose next token is to be predicted;
    ``task`` [A]: number of the task in the table; ``is_end`` [A]: that token is the end token.
    """

    tokens: torch.Tensor
    before: torch.Tensor
    task: torch.Tensor
    is_end: torch.Tensor

    @property
    def labels(self) -> torch.Tensor:
        """The tokens to be predicted, [A]."""
        return self.tokens.flatten()[self.before + 1]


def draw_batches(text: Text, tokens_per_step: int, rng: Generator) -> Iterator[BaseBatch]:
    """Yields batches of about tokens_per_step tokens, all tasks in turn, without end."""
    while True:
        length = int(
            np.clip(rng.lognormal(np.log(_MEDIAN_TOKENS), _SIGMA), _MIN_TOKENS, _MAX_TOKENS)
        )
        yield _draw_batch(text, max(1, tokens_per_step // length), length, rng)


def _draw_batch(text: Text, num_samples: int, length: int, rng: Generator) -> BaseBatch:
    makers = [task.make for task in TASKS.values()]
    numbers = np.arange(num_samples) % len(makers)
    drawn = [
        makers[number](length, length // _TOKENS_PER_QUESTION, text, rng).tokens(text.end_token)
        for number in numbers
    ]
    tokens = torch.tensor([ids for ids, _ in drawn])
    answers = torch.tensor([is_target for _, is_target in drawn]).flatten().nonzero().flatten()
    return BaseBatch(
        tokens=tokens,
        before=answers - 1,
        task=torch.from_numpy(numbers)[answers // length],
        is_end=tokens.flatten()[answers] == text.end_token,
    )
