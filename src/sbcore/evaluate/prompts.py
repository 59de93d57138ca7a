"""From an example to the token ids a model is asked with, as LongBench's pred.py makes them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.rows import ExampleRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PromptStyle = Literal["chat", "plain"]
"""chat: tasks that ask for it go through the tokenizer's chat template; plain: none does, as base
models are asked."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids of a prompt, and whether its middle was cut out."""

    ids: list[int]
    truncated: bool


def fill_template(template: str, row: ExampleRow, *, place: str) -> str:
    """Returns the template with the row's fields in it, nothing else changed.

    Raises:
        SparseBalanceError: The template names a field that the row lacks, or is no format string.
    """
    try:
        return template.format(**row.model_dump())
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        raise SparseBalanceError(
            f"{place}: template: {type(error).__name__}: {error}. "
            "name only fields of the row in braces."
        ) from error


def truncate_middle(
    tokenizer: "PreTrainedTokenizerBase", text: str, *, max_prompt_tokens: int
) -> tuple[str, bool]:
    """Returns the text without its middle if it has more tokens than allowed, and whether so.

    What stays are the first and the last half of the allowed tokens, special ones not written.
    """
    ids = tokenizer(text, truncation=False, verbose=False)["input_ids"]
    if len(ids) <= max_prompt_tokens:
        return text, False
    half = max_prompt_tokens // 2
    head, tail = ids[:half], ids[len(ids) - half :]
    kept = [tokenizer.decode(part, skip_special_tokens=True) for part in (head, tail)]
    return "".join(kept), True


def encode_prompt(
    tokenizer: "PreTrainedTokenizerBase", text: str, *, chat: bool, max_prompt_tokens: int
) -> Prompt:
    """Returns the ids of a prompt: its middle cut first, the chat template put around it then.

    The limit is therefore the prompt's own; template and answer come on top.

    Raises:
        SparseBalanceError: The chat template is broken, or refuses a message of the user's.
    """
    text, truncated = truncate_middle(tokenizer, text, max_prompt_tokens=max_prompt_tokens)
    if not chat:
        return Prompt(tokenizer(text, verbose=False)["input_ids"], truncated)
    rendered = _as_message(tokenizer, text)
    # The template writes the special tokens itself; the tokenizer must not add them again.
    ids = tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"]
    return Prompt(ids, truncated)


def _as_message(tokenizer: "PreTrainedTokenizerBase", text: str) -> str:
    """Returns the text as the user's message, as the chat template writes it."""
    from jinja2 import TemplateError

    messages = [{"role": "user", "content": text}]
    try:
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        raise SparseBalanceError(
            f"{tokenizer.name_or_path}: chat template: {error}. correct chat_template.jinja, or "
            "set evaluate.prompt_style to plain, as base models are asked."
        ) from error
    return str(rendered)
