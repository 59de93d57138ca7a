"""Text of an exact number of tokens: source lines and the demo's words.

Lines never share a token (see `tokenizer`), so the tokens of pieces put together add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbcore.demo.words import ALL_WORDS


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that becomes the same tokens whatever stands around it."""

    text: str
    tokens: tuple[int, ...]

    def cut_line_end(self) -> tuple["Piece", "Piece"]:
        """Returns a line without its end, and the end: always a token of its own."""
        return Piece(self.text[:-1], self.tokens[:-1]), Piece("\n", self.tokens[-1:])


class Text:
    """Lines of source files and the demo's words, as pieces."""

    def __init__(self, files: Sequence[Sequence[str]], tokenizer: Any) -> None:
        lines = [line for file in files for line in file]
        encoded = tokenizer.backend_tokenizer.encode_batch(lines, add_special_tokens=False)
        self._lines = [Piece(text, tuple(e.ids)) for text, e in zip(lines, encoded, strict=True)]
        self._by_size: dict[int, list[Piece]] = {}
        for line in self._lines:
            self._by_size.setdefault(len(line.tokens), []).append(line)
        ids = tokenizer.convert_tokens_to_ids(list(ALL_WORDS))
        self.words = {w: Piece(w, (i,)) for w, i in zip(ALL_WORDS, ids, strict=True)}
        self.end_token: int = tokenizer.eos_token_id

    def lines(self, num_tokens: int, rng: np.random.Generator) -> list[Piece]:
        """Returns lines of num_tokens in all: consecutive ones, led by one or two that fit."""
        run: list[Piece] = []
        left, at = num_tokens, int(rng.integers(len(self._lines)))
        while left > 0:
            line = self._lines[at % len(self._lines)]
            if len(line.tokens) > left:
                break
            run.append(line)
            left, at = left - len(line.tokens), at + 1
        return self._fitting(left, rng) + run

    def _fitting(self, num_tokens: int, rng: np.random.Generator) -> list[Piece]:
        chosen: list[Piece] = []
        while num_tokens > 0:
            size = max(size for size in self._by_size if size <= num_tokens)
            lines = self._by_size[size]
            chosen.append(lines[int(rng.integers(len(lines)))])
            num_tokens -= size
        return chosen


def join(pieces: Sequence[Piece]) -> str:
    """Returns the pieces' text."""
    return "".join(piece.text for piece in pieces)
