"""What of an evaluation is asked anew, how prompts are formed, what the progress bar is told."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.answering import Answering, Asked
from sbcore.evaluate.predictions import PredictionFile
from sbcore.evaluate.prompts import Prompt
from sbcore.evaluate.task_folder import load_tasks


@pytest.fixture
def loaded(task_dir):
    """The task of five examples."""
    return load_tasks([task_dir], ["first"], max_examples=9)[0]


@pytest.fixture
def answering(model_dir, tokenizer_dir, tokenizer, make_config, tmp_path):
    def make(*, shard=None, config=None, **values):
        config = config or make_config(**values)
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        return Answering(config, model_dir, tokenizer_dir, tokenizer, out, shard or rank_of(0, 1))

    return make


def rank_of(rank, num_ranks):
    """Returns a rank whose others never come: it deals out and waits for nobody."""
    return SimpleNamespace(
        rank=rank,
        num_ranks=num_ranks,
        own=lambda parts: parts[rank::num_ranks],
        wait=lambda: None,
        device=lambda wanted: SimpleNamespace(type=wanted),
    )


@pytest.mark.parametrize(
    ("style", "task_asks", "is_chat"),
    [("chat", True, True), ("chat", False, False), ("plain", True, False), ("plain", False, False)],
)
def test_tasks_that_ask_for_it_are_chats_unless_all_are_plain(
    answering, tokenizer, loaded, style, task_asks, is_chat
):
    task = replace(loaded.task, chat=task_asks)
    (prompt, *_) = answering(prompt_style=style).prompts(replace(loaded, task=task))
    text = "some words?"
    assert tokenizer.decode(prompt.ids) == (f"<s>[{text}]" if is_chat else f"<s>{text}")


def test_a_field_that_is_missing_names_the_first_row_as_1(answering, loaded):
    with pytest.raises(SparseBalanceError, match=r"first\.jsonl: row 1: template: "):
        answering().prompts(replace(loaded, template="{question}"))


def test_what_ranks_begin_with_is_left_to_the_first(answering, loaded, tmp_path):
    (asked,) = answering(shard=rank_of(1, 2)).begin([loaded])
    assert (asked.kept, asked.is_finished) == ({}, False)
    assert not list((tmp_path / "out").iterdir())
    answering(shard=rank_of(0, 2)).begin([loaded])
    assert (tmp_path / "out/state.json").is_file()


@pytest.mark.parametrize(
    ("values", "is_other"),
    [
        ({"max_prompt_tokens": 77}, True),
        ({"prompt_style": "plain"}, True),
        ({"decoding": "sparse"}, True),
        ({"batch_size": 1}, True),  # other sums, rounded otherwise
        ({"kind": "sparse"}, True),
        ({"tasks": ["first"]}, False),
        ({"curve_top_k": [1, 3]}, False),
        ({"niah": {"num_examples": 99}}, False),
    ],
)
def test_answers_are_kept_as_long_as_no_setting_of_theirs_changes(
    answering, loaded, values, is_other
):
    before, now = (each._digest(loaded) for each in (answering(), answering(**values)))
    assert (before != now) == is_other


def test_answers_of_another_variant_alike_in_all_settings_are_kept(answering, loaded, make_config):
    alike = make_config().model_copy(update={"variant": "w"})
    assert answering(config=alike)._digest(loaded) == answering()._digest(loaded)


def test_answers_are_made_anew_of_other_weights_words_tasks_or_examples(
    answering, loaded, tmp_path
):
    usual = answering()
    here, other = usual._digest(loaded), tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    changed = [
        replace(usual, model_dir=other)._digest(loaded),
        replace(usual, tokenizer_dir=other)._digest(loaded),
        usual._digest(replace(loaded, task=replace(loaded.task, max_new_tokens=3))),
        usual._digest(replace(loaded, template="{input}")),
        usual._digest(replace(loaded, rows=loaded.rows[::-1])),
    ]
    assert len({here, *changed}) == 6


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    num_prompts=st.integers(1, 12),
    num_kept=st.integers(0, 12),
    num_ranks=st.integers(1, 4),
    batch_size=st.integers(1, 4),
)
def test_the_bar_of_the_first_rank_ends_at_all_prompts(
    answering, loaded, tmp_path, num_prompts, num_kept, num_ranks, batch_size
):
    """It stands for the others too, who go about as fast."""
    asker = answering(shard=rank_of(0, num_ranks), batch_size=batch_size)
    asked_for = []
    asker.__dict__["_generator"] = SimpleNamespace(
        answer=lambda prompts, task: asked_for.extend(prompts) or ["a"] * len(prompts)
    )
    prompts = [Prompt([1], index % 3 == 0) for index in range(num_prompts)]
    kept = dict.fromkeys(range(min(num_kept, num_prompts)), "a")
    asked = Asked(loaded, PredictionFile(tmp_path, "first", ""), kept)
    told = []
    asker.answer(asked, prompts, told.append)
    missing = num_prompts - len(kept)
    assert told[0] == len(kept)
    assert sum(told[1:]) == min(missing, num_ranks * len(asked_for))
    assert num_ranks > 1 or sum(told) == num_prompts
    assert asked.num_truncated == -(-num_prompts // 3)
