"""Generation in packs: what a prompt is answered does not depend on its neighbours."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from sbcore.evaluate.batches import make_batches
from sbcore.evaluate.generate import Generator, RepetitionPenalty
from sbcore.evaluate.loading import load_generator
from sbcore.evaluate.longbench import STANDARD
from sbcore.evaluate.prompts import Prompt

TASK = replace(STANDARD[0], max_new_tokens=12)
LENGTHS = (1, 4, 5, 17, 17, 33, 64)  # one token, whole blocks, one more, equal ones


@pytest.fixture
def prompts():
    rng = torch.Generator().manual_seed(5)
    draw = [torch.randint(2, 258, (length,), generator=rng).tolist() for length in LENGTHS]
    return [Prompt(ids, False) for ids in draw]


@pytest.fixture
def make_generator(model_dir, tokenizer, make_config):
    def make(kind, *, decoding="dense", **settings):
        generator = load_generator(
            make_config(kind=kind, decoding=decoding),
            model_dir=model_dir,
            tokenizer=tokenizer,
            device=torch.device("cpu"),
        )
        for key, value in settings.items():
            setattr(generator.packed.model.generation_config, key, value)
        return generator

    return make


@pytest.fixture
def by_library(model_dir):
    """Ids that transformers' own greedy search gives for one prompt, dense attention."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, attn_implementation="eager")

    def run(ids, num_tokens, **settings):
        found = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids)),
            do_sample=False,
            max_new_tokens=num_tokens,
            min_new_tokens=num_tokens,
            use_cache=True,
            pad_token_id=0,
            **settings,
        )
        return found[0, len(ids) :].tolist()

    return run


def new_ids(generator, prompts, num_tokens=12):
    task = replace(TASK, max_new_tokens=num_tokens)
    with torch.inference_mode():
        return generator._generate([prompt.ids for prompt in prompts], task, []).tolist()


def test_packed_prompts_are_answered_as_by_the_library(make_generator, by_library, prompts):
    found = new_ids(make_generator("dense"), prompts)
    assert found == [by_library(prompt.ids, 12) for prompt in prompts]


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_neighbours_change_nothing(make_generator, prompts, kind):
    generator = make_generator(kind)
    alone = [new_ids(generator, [prompt])[0] for prompt in prompts]
    assert new_ids(generator, prompts) == alone
    assert new_ids(generator, prompts[::-1]) == alone[::-1]


def test_the_budget_reads_prompts(make_generator, prompts):
    dense, sparse = (new_ids(make_generator(kind), prompts) for kind in ("dense", "sparse"))
    assert sparse[:3] == dense[:3]  # two blocks of four hold them
    assert sparse != dense


def test_sparse_decoding_is_reading_token_by_token(make_generator, prompts):
    generator = make_generator("sparse", decoding="sparse")
    found = new_ids(generator, prompts)
    for prompt, row in zip(prompts, found, strict=True):
        for done in range(len(row)):
            ids = [*prompt.ids, *row[:done]]
            with torch.inference_mode():
                rows = generator.packed.empty_rows([ids], max_new_tokens=1)
                logits = generator.packed.read([ids], rows)[0]
            assert int(logits.argmax()) == row[done], (len(prompt.ids), done)
    assert found != new_ids(make_generator("sparse"), prompts)


def test_dense_variants_decode_densely(make_generator, prompts):
    one, two = (make_generator("dense", decoding=word) for word in ("dense", "sparse"))
    assert new_ids(one, prompts) == new_ids(two, prompts)


def test_repetition_penalty_is_the_librarys(make_generator, by_library, prompts):
    generator = make_generator("dense", repetition_penalty=1.7)
    found = new_ids(generator, prompts)
    assert found == [by_library(prompt.ids, 12, repetition_penalty=1.7) for prompt in prompts]
    assert found != new_ids(make_generator("dense"), prompts)


def test_penalised_logits():
    prompts = [[0], [1, 1]]
    penalty = RepetitionPenalty.of_prompts(
        prompts, factor=2.0, vocab_size=3, device=torch.device("cpu")
    )
    logits = torch.tensor([[3.0, 2.0, 1.0], [-2.0, -1.5, -2.9]])
    assert penalty.choose(logits).tolist() == [1, 0]
    assert penalty.seen.tolist() == [[True, True, False], [True, True, False]]


def test_rows_that_end_early_are_cut(make_generator, tokenizer, prompts):
    generator = make_generator("dense")
    whole = new_ids(generator, prompts)
    end = whole[3][4]
    generator.packed.model.generation_config.eos_token_id = end
    expected = [row[: row.index(end) + 1] if end in row else row for row in whole]
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in expected]
    assert generator.answer(prompts, TASK) == texts


def test_generation_stops_when_all_rows_have_ended(make_generator, prompts, monkeypatch):
    generator = make_generator("dense")
    first = {row[0] for row in new_ids(generator, prompts)}
    steps = []
    original = type(generator.packed).step
    monkeypatch.setattr(
        type(generator.packed), "step", lambda *words: steps.append(1) or original(*words)
    )
    generator.packed.model.generation_config.eos_token_id = sorted(first)
    generator.answer(prompts, TASK)
    assert not steps


class Scripted:
    """A model that says what is written, whatever it is asked."""

    device = torch.device("cpu")
    model = SimpleNamespace(generation_config=SimpleNamespace(repetition_penalty=None))

    def __init__(self, *rows):
        self.left = torch.nn.functional.one_hot(torch.tensor(rows)).float().unbind(1)

    def empty_rows(self, prompts, *, max_new_tokens):
        return None

    def read(self, prompts, rows):
        return self.step(None, rows)

    def step(self, tokens, rows):
        first, *self.left = self.left
        return first


def test_generation_stops_with_the_last_row_that_ends(tokenizer):
    packed = Scripted((5, 1, 6, 6, 6, 6), (5, 6, 6, 1, 6, 6))
    found = Generator(packed, tokenizer)._generate([[0], [0]], TASK, [1])
    assert found.tolist() == [[5, 1, 6, 6], [5, 6, 6, 1]]


def test_a_line_ends_with_its_own_token_or_with_the_answer(make_generator):
    """Tokenizers of Llama write a blank before a line end that begins a text."""
    generator = make_generator("dense", eos_token_id=7)
    tokenizer = SimpleNamespace(
        eos_token_id=2,
        encode=lambda _, *, add_special_tokens: [29871, 13, 2][: 2 + add_special_tokens],
    )
    generator = replace(generator, tokenizer=tokenizer)
    assert generator._ends(TASK) == [7, 2]
    assert generator._ends(replace(TASK, stop_at_newline=True)) == [7, 2, 13]


def test_batches_hold_like_lengths_longest_first():
    prompts = [Prompt([0] * length, False) for length in (3, 50, 3, 4, 5, 20)]
    assert make_batches(prompts, batch_size=9, batch_tokens=1000) == [[1, 5, 4, 3, 0, 2]]
    assert make_batches(prompts, batch_size=2, batch_tokens=1000) == [[1, 5], [4, 3], [0, 2]]
    assert make_batches(prompts, batch_size=9, batch_tokens=25) == [[1], [5, 4], [3, 0, 2]]
    assert make_batches(prompts, batch_size=9, batch_tokens=60) == [[1], [5, 4, 3, 0, 2]]
    assert make_batches(prompts, batch_size=9, batch_tokens=75) == [[1, 5, 4], [3, 0, 2]]


def test_a_long_prompt_makes_few_wide_rows():
    prompts = [Prompt([0] * length, False) for length in (50, 3, 3, 3, 3)]
    assert make_batches(prompts, batch_size=9, batch_tokens=100) == [[0, 1, 2, 3], [4]]


def test_every_prompt_is_in_one_batch():
    lengths = torch.randint(1, 99, (57,), generator=torch.Generator().manual_seed(1)).tolist()
    prompts = [Prompt([0] * length, False) for length in lengths]
    batches = make_batches(prompts, batch_size=5, batch_tokens=200)
    assert sorted(index for batch in batches for index in batch) == list(range(57))
    for batch in batches:
        assert len(batch) <= 5
        assert len(batch) == 1 or sum(lengths[index] for index in batch) <= 200
