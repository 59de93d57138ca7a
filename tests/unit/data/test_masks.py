"""The loss mask against what the tokenizer library itself says, and on real templates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbcore.data.encode import overlaps
from sbcore.data.formats import Conversation
from sbcore.data.render import make_renderer
from sbcore.data.tokenizers import load_tokenizer


def turns(*contents: str) -> list[dict[str, str]]:
    return [
        {"role": ("user", "assistant")[i % 2], "content": content}
        for i, content in enumerate(contents)
    ]


def test_marked_turns_agree_with_the_library(run, tokenizers):
    messages = turns("a question", "its answer", "another", "and this", "", "no question")
    _, store = run([{"messages": messages}], tokenizer="marked")
    tokens, is_target = store.sample(0)
    theirs = load_tokenizer(tokenizers["marked"]).apply_chat_template(
        messages, return_assistant_tokens_mask=True, return_dict=True
    )
    assert tokens.tolist() == theirs["input_ids"]
    assert is_target.astype(int).tolist() == theirs["assistant_masks"]


@pytest.mark.parametrize("template", ["headers", "marked"])
def test_each_of_several_tokens_of_one_character_is_a_target(run, words, template):
    _, store = run([{"messages": turns("q", "答")}], tokenizer=template)
    assert words(store, 0)[1] == "答<|end|>"


def test_a_prefix_template_and_a_marked_one_give_the_same_mask(run):
    record = {"messages": turns("one", "two", "three", "four", "five")}
    masks = [run([record], tokenizer=t)[1].sample(0)[1].tolist() for t in ("headers", "marked")]
    assert masks[0] == masks[1]


def test_a_turn_that_later_turns_change_is_refused(tokenizers):
    tokenizer = load_tokenizer(tokenizers["headers"])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ':' }}{% if loop.last %}{{ 'thought;' }}{% endif %}"
        "{{ m['content'] + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    with pytest.raises(ValueError, match=r"^here:1: messages\[1\]: .* otherwise once turns follow"):
        make_renderer(tokenizer)(Conversation(turns("q", "a", "q2", "a2")), "here:1")


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=6),
)
def test_overlaps_is_what_a_loop_over_characters_says(sizes, gaps_and_sizes):
    ends = np.cumsum(sizes)
    offsets = np.stack([ends - sizes, ends], axis=1)
    spans, at = [], 0
    for gap, size in gaps_and_sizes:
        spans.append((at + gap, at + gap + size))
        at += gap + size
    inside = {c for start, end in spans for c in range(start, end)}
    expected = [any(c in inside for c in range(s, e)) for s, e in offsets.tolist()]
    assert overlaps(offsets, spans).tolist() == expected
