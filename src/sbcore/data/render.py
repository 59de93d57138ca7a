"""The text of a sample and where in it the loss is: the assistant's words, as character spans.

Three ways, chosen once per data set: a chat template that marks the assistant's words itself
(``{% generation %}``), one that does not (each turn's text is what it adds to the rendering of
the turns before it: quadratic in the number of turns, so for conversations, not for thousands of
turns), and no template at all (prompt and response put together).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sbcore.data.formats import Conversation, Document, Message, Sample
from sbcore.data.records import BadRecord

Span = tuple[int, int]

_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A sample's text; ``spans`` are rising, disjoint character ranges that carry the loss.

    ``with_special_tokens``: the tokenizer adds its own first and last tokens (templates write
    them themselves).
    """

    text: str
    spans: list[Span]
    with_special_tokens: bool


Renderer = Callable[[Sample, str], Rendered]
"""Takes a sample and its place (``file:line``, for errors)."""


def make_renderer(tokenizer: Any) -> Renderer:
    """Returns the renderer that fits the tokenizer's chat template, or its absence."""
    end = _missing_end(tokenizer)
    chat = _chat_renderer(tokenizer, end)

    def render(sample: Sample, place: str) -> Rendered:
        if isinstance(sample, Document):
            text = sample.text + end
            return Rendered(text, [(0, len(text))], with_special_tokens=True)
        return chat(sample, place)

    return render


def _chat_renderer(tokenizer: Any, end: str) -> Callable[[Conversation, str], Rendered]:
    template = tokenizer.chat_template
    if template is None:
        return lambda sample, place: _concatenate(sample.messages, end, place)
    if _GENERATION_TAG.search(template):
        return lambda sample, place: _render_marked(tokenizer, sample.messages, place)
    return lambda sample, place: _render_prefixes(tokenizer, sample.messages, place)


def _concatenate(messages: list[Message], end: str, place: str) -> Rendered:
    if [message["role"] for message in messages] != ["user", "assistant"]:
        raise BadRecord(
            "no_chat_template",
            f"{place}: messages = {len(messages)} turns: the tokenizer has no chat template. "
            "give the tokenizer of a chat model, or records of one prompt and one response.",
        )
    prompt, response = messages[0]["content"], messages[1]["content"] + end
    spans = [(len(prompt), len(prompt) + len(response))]
    return Rendered(prompt + response, spans, with_special_tokens=True)


def _render_marked(tokenizer: Any, messages: list[Message], place: str) -> Rendered:
    # apply_chat_template loses the mask of a last character that is several tokens, so the spans
    # are taken one level below it.
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, spans = render_jinja_template(
            conversations=[messages],
            chat_template=tokenizer.chat_template,
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        )
    except Exception as error:  # templates raise what they like
        raise _template_error(place, error) from error
    filled = [(start, end) for start, end in spans[0] if start < end]
    return Rendered(texts[0], filled, with_special_tokens=False)


def _render_prefixes(tokenizer: Any, messages: list[Message], place: str) -> Rendered:
    def text_of(num_turns: int, *, prompt: bool) -> str:
        try:
            text: str = tokenizer.apply_chat_template(
                messages[:num_turns], tokenize=False, add_generation_prompt=prompt
            )
        except Exception as error:  # templates raise what they like
            raise _template_error(place, error) from error
        return text

    full = text_of(len(messages), prompt=False)
    spans = []
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        if turn == 0:
            raise _template_error(place, "the first turn is the assistant's, so nothing is asked")
        before, after = text_of(turn, prompt=True), text_of(turn + 1, prompt=False)
        after = _cut_after_end(after, len(before), tokenizer.eos_token)
        if not (full.startswith(after) and after.startswith(before)):
            raise BadRecord(
                "template_not_incremental",
                f"{place}: messages[{turn}]: the chat template writes this turn otherwise once "
                "turns follow it. end the record with this turn, or give a template that marks "
                "the assistant's words with generation tags.",
            )
        if len(before) < len(after):
            spans.append((len(before), len(after)))
    return Rendered(full, spans, with_special_tokens=False)


def _cut_after_end(text: str, start: int, end_token: str | None) -> str:
    """Returns the text without what stands after the turn's end token: no model writes that."""
    at = text.rfind(end_token, start) if end_token else -1
    return text if at < 0 else text[: at + len(end_token or "")]


def _missing_end(tokenizer: Any) -> str:
    """Returns the end token that plain text needs, "" if there is none or it comes by itself."""
    if tokenizer.eos_token is None:
        return ""
    comes_by_itself = tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id
    return "" if comes_by_itself else str(tokenizer.eos_token)


def _template_error(place: str, error: Exception | str) -> BadRecord:
    return BadRecord(
        "template_refused",
        f"{place}: messages: the chat template refuses them: {str(error).splitlines()[0]}. "
        "correct the order of the turns, or set data.on_bad_line to skip.",
    )
