"""What the fields of a record mean: one row of a table and one function for each format.

Each format says by which fields it is known and turns a record into a `Conversation` (loss on the
assistant's turns) or a `Document` (loss on every token but the first).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sbcore.data.records import BadRecord, Record
from sbcore.errors import SparseBalanceError

Message = dict[str, str]
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order, as chat templates take them: role and content."""

    messages: list[Message]


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text."""

    text: str


Sample = Conversation | Document


@dataclass(frozen=True, slots=True)
class RecordFormat:
    """A format: the fields that tell it from others, and its reading."""

    name: str
    fields: tuple[str, ...]
    read: Callable[[Record], Sample]


def detect_format(record: Record) -> RecordFormat:
    """Returns the first format of the table whose fields the record has.

    Raises:
        SparseBalanceError: None has.
    """
    for row in FORMATS:
        if all(name in record.fields for name in row.fields):
            return row
    known = "; ".join(f"{row.name}: {', '.join(row.fields)}" for row in FORMATS)
    raise SparseBalanceError(
        f"{record.place}: fields = {', '.join(record.fields) or 'none'}: no known format. "
        f"rename them to one of ({known})."
    )


def find_format(name: str) -> RecordFormat:
    """Returns the format of this name (one of `sbcore.config.data.Format`, not auto)."""
    return next(row for row in FORMATS if row.name == name)


def _messages(record: Record) -> Conversation:
    return Conversation(_read_messages(record))


def _prompt_response(record: Record) -> Conversation:
    return _exchange(_text(record, "prompt"), _text(record, "response"))


def _document(record: Record) -> Document:
    return Document(_text(record, "text"))


def _longalpaca(record: Record) -> Conversation:
    """Instruction, optional input below it, output."""
    parts = [_text(record, "instruction")]
    if record.fields.get("input"):
        parts.append(_text(record, "input"))
    return _exchange("\n\n".join(parts), _text(record, "output"))


def _chatqa2(record: Record) -> Conversation:
    """Turns, or one question with the speakers' names in it; a document goes before them."""
    messages = _read_messages(record) if "messages" in record.fields else [_question(record)]
    if record.fields.get("document"):
        first = next((m for m in messages if m["role"] == "user"), messages[0])
        first["content"] = f"{_text(record, 'document')}\n\n{first['content']}"
    key = "answers" if "answers" in record.fields else "answer"
    return Conversation([*messages, _turn("assistant", _first_answer(record, key))])


def _question(record: Record) -> Message:
    question = _text(record, "question").removeprefix("User: ").removesuffix("Assistant:")
    return _turn("user", question.strip())


# The order decides in auto: a format whose fields include another's comes first.
FORMATS = (
    RecordFormat("chatqa2", ("messages", "answers"), _chatqa2),
    RecordFormat("chatqa2", ("question", "answers"), _chatqa2),
    RecordFormat("chatqa2", ("question", "answer"), _chatqa2),
    RecordFormat("longalign", ("messages", "length"), _messages),
    RecordFormat("messages", ("messages",), _messages),
    RecordFormat("longalpaca", ("instruction", "output"), _longalpaca),
    RecordFormat("prompt_response", ("prompt", "response"), _prompt_response),
    RecordFormat("text", ("text",), _document),
)


def _exchange(prompt: str, response: str) -> Conversation:
    return Conversation([_turn("user", prompt), _turn("assistant", response)])


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _read_messages(record: Record) -> list[Message]:
    turns = _field(record, "messages")
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise _wrong(record, "messages", turns, "not a list of turns", "give role and content")
    return [_read_turn(record, f"messages[{i}]", turn) for i, turn in enumerate(turns)]


def _read_turn(record: Record, key: str, turn: object) -> Message:
    if not isinstance(turn, Mapping):
        raise _wrong(record, key, turn, "not a turn", "give an object with role and content")
    role, content = turn.get("role"), turn.get("content")
    if role not in ROLES:
        raise _wrong(record, f"{key}.role", role, "unknown", f"use one of {', '.join(ROLES)}")
    return _turn(role, _checked(record, f"{key}.content", content))


def _first_answer(record: Record, key: str) -> str:
    answers = _field(record, key)
    if isinstance(answers, list) and answers:
        return _checked(record, f"{key}[0]", answers[0])
    return _checked(record, key, answers)


def _text(record: Record, key: str) -> str:
    return _checked(record, key, _field(record, key))


def _field(record: Record, key: str) -> Any:
    if key not in record.fields:
        have = ", ".join(record.fields) or "none"
        raise BadRecord(
            "wrong_fields",
            f"{record.place}: {key}: missing (fields: {have}). correct the record, "
            "set data.format, or set data.on_bad_line to skip.",
        )
    return record.fields[key]


def _checked(record: Record, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(record, key, value, "not a text", "give a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _wrong(record, key, value, "holds half of a character", "write it again") from None
    return value


def _wrong(record: Record, key: str, value: object, problem: str, remedy: str) -> BadRecord:
    text = ascii(value)
    return BadRecord(
        "wrong_fields",
        f"{record.place}: {key} = {text if len(text) <= 40 else text[:37] + '...'}: {problem}. "
        f"{remedy}, or set data.on_bad_line to skip.",
    )
