"""A sample in the making: text, then questions, each followed by its answer.

The chat template only puts contents together and ends each answer, so a script's tokens are those
of its pieces plus one end token for each answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sbcore.demo.text import Piece, join


@dataclass(frozen=True, slots=True)
class Exchange:
    """What is asked, and the answer."""

    question: tuple[Piece, ...]
    answer: tuple[Piece, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of both, with the answer's end token."""
        return sum(len(piece.tokens) for piece in (*self.question, *self.answer)) + 1


@dataclass
class Script:
    """Turns in order: (role, pieces); what the user says in a row is one turn."""

    turns: list[tuple[str, list[Piece]]] = field(default_factory=list)

    def tell(self, pieces: Sequence[Piece]) -> None:
        """Adds text of the user."""
        if not self.turns or self.turns[-1][0] == "assistant":
            self.turns.append(("user", []))
        self.turns[-1][1].extend(pieces)

    def ask(self, exchanges: Sequence[Exchange]) -> None:
        """Adds questions, each with its answer."""
        for exchange in exchanges:
            self.tell(exchange.question)
            self.turns.append(("assistant", list(exchange.answer)))

    def messages(self) -> list[dict[str, str]]:
        """Returns the turns as chat templates take them."""
        return [{"role": role, "content": join(pieces)} for role, pieces in self.turns]

    def tokens(self, end_token: int) -> tuple[list[int], list[bool]]:
        """Returns the ids that the chat template gives, and which of them carry the loss."""
        ids: list[int] = []
        is_target: list[bool] = []
        for role, turn in self._turn_tokens():
            answered = role == "assistant"
            ids += [*turn, end_token] if answered else turn
            is_target += [answered] * (len(turn) + answered)
        is_target[0] = False  # nothing stands before it
        return ids, is_target

    def _turn_tokens(self) -> Iterator[tuple[str, list[int]]]:
        for role, pieces in self.turns:
            yield role, [token for piece in pieces for token in piece.tokens]
