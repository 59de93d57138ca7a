"""Every task: exact lengths, the template's own mask, and answers that the text supports."""

import re
from collections import Counter

import numpy as np
import pytest

from sbcore.demo.tasks import TASKS
from sbcore.demo.words import LABEL_QUESTIONS

LENGTHS = (32, 33, 64, 100, 250, 777, 2048)


def scripts(name: str, demo_text, num_questions=None):
    for length in LENGTHS:
        rng = np.random.default_rng(length)
        for _ in range(5):
            asked = length // 6 if num_questions is None else num_questions
            yield length, TASKS[name].make(length, asked, demo_text.training, rng)


@pytest.mark.parametrize("name", TASKS)
def test_lengths_and_masks_are_those_of_the_chat_template(name, demo_text):
    for length, script in scripts(name, demo_text):
        ids, is_target = script.tokens(demo_text.tokenizer.eos_token_id)
        assert len(ids) == length
        theirs = demo_text.tokenizer.apply_chat_template(
            script.messages(), return_assistant_tokens_mask=True, return_dict=True
        )
        assert ids == theirs["input_ids"]
        assert is_target[1:] == [bool(m) for m in theirs["assistant_masks"][1:]]


def question_and_answer(script):
    """Yields the text before each question, the question and its answer."""
    told = ""
    for message in script.messages():
        if message["role"] == "assistant":
            yield told[: -len("<k00?>")], told[told.rindex("<k") :], message["content"]
        else:
            told += message["content"]


def stated(text: str, key: str) -> list[str]:
    return [f"<v{value}>" for value in re.findall(rf"<k{key}=v(\d)>", text)]


@pytest.mark.parametrize("name", ["recall", "needle", "multi_value"])
def test_answers_are_the_values_that_the_text_has_stated(name, demo_text):
    asked = 0
    for _, script in scripts(name, demo_text):
        for before, question, answer in question_and_answer(script):
            values = stated(before, question[2:4])
            assert f"<k{question[2:4]}+?>".join(sorted(values)) == answer
            assert len(values) == (2 if name == "multi_value" else 1)
            asked += 1
    assert asked > 100


def test_labels_are_what_most_examples_say(demo_text):
    noisy = 0
    for _, script in scripts("few_shot", demo_text):
        for before, question, answer in question_and_answer(script):
            assert question in LABEL_QUESTIONS
            counts = Counter(stated(before, question[2:4])).most_common()
            assert counts[0][0] == answer
            assert counts[0][1] > counts[1][1]
            noisy += len(counts) > 1
    assert noisy > 30


def test_the_next_line_is_code_that_says_something(demo_text):
    for _, script in scripts("next_line", demo_text):
        turns = script.messages()
        assert turns[-1]["role"] == "assistant"
        assert all("<k" not in turn["content"] for turn in turns)
        answers = [turn["content"] for turn in turns if turn["role"] == "assistant"]
        assert not any("\n" in answer for answer in answers)
        assert all(len(answer.strip()) >= 8 for answer in answers)


@pytest.mark.parametrize("name", TASKS)
def test_one_question_means_one_answer_at_the_end(name, demo_text):
    for _, script in scripts(name, demo_text, num_questions=1):
        assert [role for role, _ in script.turns].count("assistant") == 1
        assert script.turns[-1][0] == "assistant"


def test_facts_are_spread_over_the_text(demo_text):
    places = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        text = TASKS["needle"].make(1000, 1, demo_text.training, rng).messages()[0]["content"]
        places += [match.start() / len(text) for match in re.finditer(r"<k\d\d=", text)]
    shares = np.histogram(places, bins=4, range=(0, 1))[0] / len(places)
    assert shares.min() > 0.15
