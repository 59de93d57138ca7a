"""The corpus and the tokenizer: counts add up, words are single tokens."""

import itertools

import numpy as np
import pytest

from sbcore.demo.corpus import read_corpus
from sbcore.demo.text import Text
from sbcore.demo.words import ALL_WORDS, FACTS


def test_the_corpus_is_the_same_each_time_and_bounded():
    corpus, again = read_corpus(200_000), read_corpus(200_000)
    assert (corpus.digest, corpus.files) == (again.digest, again.files)
    assert 200_000 <= corpus.num_bytes <= 200_000 * (1 + 1 / 16)
    assert not [lines for lines in corpus.files if sum(map(len, lines)) > 200_000 / 16]


def test_every_word_is_one_token_and_in_no_source(demo_text):
    ids = [demo_text.tokenizer(word)["input_ids"] for word in ALL_WORDS]
    assert all(len(word_ids) == 1 for word_ids in ids)
    assert len({word_ids[0] for word_ids in ids}) == len(ALL_WORDS) == 3 * 16 + 8 + 128
    source = "".join(itertools.chain.from_iterable(demo_text.corpus.files))
    assert not [word for word in ALL_WORDS if word in source]


def test_words_survive_decoding(demo_text):
    tokenizer, text = demo_text.tokenizer, f"x{FACTS[3][5]} y\n<v1><k02?>"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_lines_put_together_have_the_tokens_of_the_lines(demo_text):
    rng = np.random.default_rng(0)
    pieces = demo_text.training.lines(3000, rng)
    pieces.insert(7, demo_text.training.words["<k00=v0>"])
    pieces.insert(7, demo_text.training.words["<k01?>"])
    text = "".join(piece.text for piece in pieces)
    joined = [token for piece in pieces for token in piece.tokens]
    assert demo_text.tokenizer(text)["input_ids"] == joined


@pytest.mark.parametrize("num_tokens", [0, 1, 2, 13, 100, 5000])
def test_lines_have_exactly_the_tokens_asked_for(demo_text, num_tokens):
    rng = np.random.default_rng(num_tokens)
    for _ in range(20):
        pieces = demo_text.training.lines(num_tokens, rng)
        assert sum(len(piece.tokens) for piece in pieces) == num_tokens


def test_evaluation_text_is_not_training_text(demo_text):
    def long_lines(text: Text) -> set[str]:
        lines = {piece.text for piece in text.lines(200_000, np.random.default_rng(0))}
        return {line for line in lines if len(line) > 60}

    training, evaluation = long_lines(demo_text.training), long_lines(demo_text.evaluation)
    assert len(training & evaluation) < 0.1 * len(evaluation)  # some sources quote others
