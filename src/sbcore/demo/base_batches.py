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

# The two values of a key are the last thing that is learned, so they come most often; the next
# line of code is hardly learned at all and its gradients are noise to the rest.
_ORDER = (
    "recall", "multi_value", "needle", "multi_value", "few_shot",
    "multi_value", "needle", "few_shot", "next_line",
)  # fmt: skip


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

    def parts(self, num_tokens: int, device: torch.device) -> Iterator["BaseBatch"]:
        """Yields the samples, in order, in batches of at most num_tokens tokens, or one sample."""
        count, length = self.tokens.shape
        sample = self.before // length
        step = max(1, num_tokens // length)
        for first in range(0, count, step):
            inside = (sample >= first) & (sample < first + step)
            yield BaseBatch(
                tokens=self.tokens[first : first + step].to(device),
                before=(self.before[inside] - first * length).to(device),
                task=self.task[inside].to(device),
                is_end=self.is_end[inside].to(device),
            )


def draw_batches(text: Text, tokens_per_step: int, rng: Generator) -> Iterator[BaseBatch]:
    """Yields batches of about tokens_per_step tokens, all tasks in turn, without end."""
    while True:
        length = int(
            np.clip(rng.lognormal(np.log(_MEDIAN_TOKENS), _SIGMA), _MIN_TOKENS, _MAX_TOKENS)
        )
        yield _draw_batch(text, max(1, tokens_per_step // length), length, rng)


def _draw_batch(text: Text, num_samples: int, length: int, rng: Generator) -> BaseBatch:
    first = int(rng.integers(len(_ORDER)))
    names = [_ORDER[(first + i) % len(_ORDER)] for i in range(num_samples)]
    num_questions = length // _TOKENS_PER_QUESTION
    drawn = [
        TASKS[name].make(length, num_questions, text, rng).tokens(text.end_token) for name in names
    ]
    numbers = torch.tensor([list(TASKS).index(name) for name in names])
    tokens = torch.tensor([ids for ids, _ in drawn])
    answers = torch.tensor([is_target for _, is_target in drawn]).flatten().nonzero().flatten()
    return BaseBatch(
        tokens=tokens,
        before=answers - 1,
        task=numbers[answers // length],
        is_end=tokens.flatten()[answers] == text.end_token,
    )
