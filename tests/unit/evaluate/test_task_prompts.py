"""Prompts: the benchmark's own folders, byte by byte; truncation; the chat template."""

import gzip
import json
import shutil

import pytest

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.longbench import STANDARD
from sbcore.evaluate.prompts import encode_prompt, fill_template, truncate_middle
from sbcore.evaluate.rows import ExampleRow
from sbcore.evaluate.task_folder import load_tasks

ROW = {"input": "q", "context": "c", "answers": ["a"], "all_classes": None, "length": 3}


@pytest.fixture
def longbench(tmp_path):
    """A LongBench folder with one task, as it is shipped."""
    folder = tmp_path / "LongBench"
    (folder / "config").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "config/dataset2prompt.json").write_text('{"qasper": "Read {context} .\\n{input}"}')
    (folder / "config/dataset2maxlen.json").write_text('{"qasper": 7}')
    (folder / "data/qasper.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps(ROW) + "\n")
    return folder


def test_prompts_of_real_data_are_byte_identical_to_plain_formatting(real_data):
    folder = real_data / "longbench"
    templates = json.loads((folder / "config/dataset2prompt.json").read_text())
    num_compared = 0
    for loaded in load_tasks([folder], [task.name for task in STANDARD], max_examples=500):
        name = loaded.task.name
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        for record, row in zip(records, loaded.rows, strict=True):
            prompt = fill_template(loaded.template, row, place=name)
            assert prompt.encode() == templates[name].format(**record).encode()
            num_compared += 1
    assert num_compared == 206


def test_folder_as_shipped(longbench):
    (loaded,) = load_tasks([longbench], ["qasper", "qasper"], max_examples=1)
    assert (loaded.task.max_new_tokens, loaded.template) == (7, "Read {context} .\n{input}")
    assert (len(loaded.rows), loaded.num_available) == (1, 2)
    assert loaded.chance is None


def test_rows_may_lie_in_the_folder_itself_and_be_compressed(longbench):
    rows = (longbench / "data/qasper.jsonl").read_bytes()
    (longbench / "data/qasper.jsonl").unlink()
    (longbench / "qasper.jsonl.gz").write_bytes(gzip.compress(rows))
    assert load_tasks([longbench], ["qasper"], max_examples=9)[0].num_available == 2


def test_the_first_examples_are_asked(longbench):
    rows = [ROW | {"input": word} for word in "abc"]
    (longbench / "data/qasper.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (loaded,) = load_tasks([longbench], ["qasper"], max_examples=2)
    assert [row.input for row in loaded.rows] == ["a", "b"]


def test_of_several_folders_a_task_is_missing_in_the_one_that_ships_its_prompt(longbench, tmp_path):
    (longbench / "data/qasper.jsonl").unlink()
    (tmp_path / "other").mkdir()
    with pytest.raises(SparseBalanceError, match="LongBench: qasper: no qasper"):
        load_tasks([tmp_path / "other", longbench], ["qasper"], max_examples=9)


def test_of_several_folders_the_describing_one_counts_then_that_with_the_examples(
    longbench, task_dir, tmp_path
):
    (longbench / "data/first.jsonl").write_bytes((task_dir / "second.jsonl").read_bytes())
    (loaded,) = load_tasks([longbench, task_dir], ["first"], max_examples=9)
    assert loaded.path == task_dir / "first.jsonl"
    shutil.copytree(longbench, tmp_path / "bare")
    (tmp_path / "bare/data/qasper.jsonl").unlink()
    (loaded,) = load_tasks([tmp_path / "bare", longbench], ["qasper"], max_examples=9)
    assert loaded.path == longbench / "data/qasper.jsonl"


def test_length_balanced_set_shares_the_prompt(longbench):
    (longbench / "data/qasper.jsonl").rename(longbench / "data/qasper_e.jsonl")
    (loaded,) = load_tasks([longbench], ["qasper_e"], max_examples=9)
    assert (loaded.task.name, loaded.task.max_new_tokens) == ("qasper_e", 7)
    assert loaded.template == "Read {context} .\n{input}"


@pytest.mark.parametrize(
    ("described", "chance"),
    [
        ({"metric": "classification"}, 37.5),  # of two labels and of four
        ({"metric": "classification", "chance": 0.0}, 0.0),
        ({"metric": "exact"}, None),
    ],
)
def test_chance_is_what_the_folder_says_or_what_labels_leave(task_dir, described, chance):
    entry = {"max_new_tokens": 1, "template": "{input}"} | described
    (task_dir / "tasks.json").write_text(json.dumps({"first": entry}))
    rows = [ROW | {"all_classes": list(labels)} for labels in ("ab", "abcd")]
    (task_dir / "first.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_tasks([task_dir], ["first"], max_examples=9)[0].chance == chance


def test_chance_of_a_label_task_is_one_of_its_labels(real_data):
    (loaded,) = load_tasks([real_data / "longbench"], ["trec"], max_examples=9)
    assert loaded.chance == pytest.approx(100 / 50)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda folder: (folder / "data/qasper.jsonl").unlink(), "no qasper.jsonl"),
        (lambda folder: (folder / "config/dataset2prompt.json").unlink(), "prompt.json: missing"),
        (
            lambda folder: (folder / "config/dataset2maxlen.json").write_text("{}"),
            "maxlen.json: qasper: missing",
        ),
        (
            lambda folder: (folder / "config/dataset2maxlen.json").write_text('{"qasper": "many"}'),
            'maxlen.json: qasper = "many": input should be a valid integer. correct it.',
        ),
        (
            lambda folder: (folder / "config/dataset2maxlen.json").write_text('{"qasper": 0}'),
            "maxlen.json: qasper = 0: input should be greater than 0",
        ),
        (
            lambda folder: (folder / "config/dataset2prompt.json").write_text("[1]"),
            r"prompt.json: file = \[1\]: input should be an object",
        ),
        (
            lambda folder: (folder / "data/qasper.jsonl").write_text('{"input": "q"}'),
            r"qasper.jsonl:1: context: field required",
        ),
        (
            lambda folder: (folder / "data/qasper.jsonl").write_text(
                json.dumps(ROW | {"length": "12"})
            ),
            'qasper.jsonl:1: length = "12": input should be a valid integer',
        ),
    ],
)
def test_incomplete_folders(longbench, change, wrong):
    change(longbench)
    with pytest.raises(SparseBalanceError, match=wrong):
        load_tasks([longbench], ["qasper"], max_examples=9)


def test_folder_of_neither_kind(tmp_path):
    with pytest.raises(SparseBalanceError, match="no config/ in it"):
        load_tasks([tmp_path], ["qasper"], max_examples=9)
    with pytest.raises(SparseBalanceError, match="no such folder"):
        load_tasks([tmp_path / "nowhere"], ["qasper"], max_examples=9)
    for name, meant in (
        ("quasper", "qasper"),
        ("longbench_quasper", "qasper"),
        ("LongBench", "longbench"),
    ):
        with pytest.raises(SparseBalanceError, match=f"Did you mean '{meant}'"):
            load_tasks([tmp_path], [name], max_examples=9)
    for name in ("niah", "ruler", "ruler_vt"):
        with pytest.raises(SparseBalanceError, match=f"{name}: none of its tasks .* sb make-tasks"):
            load_tasks([tmp_path], [name], max_examples=9)
    with pytest.raises(SparseBalanceError, match="nothing to evaluate"):
        load_tasks([tmp_path], [], max_examples=9)


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ('{"metric": "exactly", "max_new_tokens": 1, "template": ""}', "Did you mean 'exact'"),
        ('{"metric": "exact", "template": ""}', "first.max_new_tokens: field required"),
        ('{"metric": "exact", "max_new_tokens": 0, "template": ""}', "first.max_new_tokens = 0"),
        ('{"metric": "exact", "max_new_tokens": 1, "template": "", "x": 1}', "first.x = 1"),
        ('{"metric": "exact", "max_new_tokens": 1, "template": "", "chance": 200}', "chance = 200"),
        ("{", "invalid json"),
    ],
)
def test_wrong_descriptions(task_dir, entry, wrong):
    (task_dir / "tasks.json").write_text(f'{{"first": {entry}}}')
    with pytest.raises(SparseBalanceError, match=wrong) as caught:
        load_tasks([task_dir], ["first"], max_examples=9)
    assert str(caught.value).startswith(f"{task_dir}/tasks.json: ")


def test_template_with_a_field_that_rows_lack():
    row = ExampleRow.model_validate({**ROW, "topic": "t"})
    assert fill_template("{topic}: {input}", row, place="here") == "t: q"
    for template in ("{question}", "{}", "{input", "{input.name}", "{answers[first]}"):
        with pytest.raises(SparseBalanceError, match=r"^here: template: "):
            fill_template(template, row, place="here")


def test_short_prompts_are_left_alone(tokenizer):
    text = "x" * 9  # <s> and nine bytes
    assert truncate_middle(tokenizer, text, max_prompt_tokens=10) == (text, False)


@pytest.mark.parametrize("limit", [6, 7])
def test_the_middle_goes(tokenizer, limit):
    # The first half is <s> and two bytes, and <s> is not written back.
    text, truncated = truncate_middle(tokenizer, "abcdefghij", max_prompt_tokens=limit)
    assert (text, truncated) == ("abhij", True)


def test_a_limit_of_one_token_leaves_nothing(tokenizer):
    assert truncate_middle(tokenizer, "abcdefghij", max_prompt_tokens=1) == ("", True)


def test_truncated_prompts_are_tokenized_again(tokenizer):
    prompt = encode_prompt(tokenizer, "abcdefghij", chat=False, max_prompt_tokens=6)
    assert prompt.truncated
    assert prompt.ids == tokenizer("abhij")["input_ids"]


def test_chat_template_comes_after_truncation_and_brings_its_own_special_tokens(tokenizer):
    prompt = encode_prompt(tokenizer, "abcdefghij", chat=True, max_prompt_tokens=6)
    assert tokenizer.decode(prompt.ids) == "<s>[abhij]"
    assert prompt.ids.count(tokenizer.bos_token_id) == 1


def test_chat_templates_are_given_a_users_message_and_open_the_answer(tokenizer):
    tokenizer.chat_template = (
        "<s>{{ messages[0].role }}: {{ messages[0].content }}"
        "{% if add_generation_prompt %} assistant:{% endif %}"
    )
    prompt = encode_prompt(tokenizer, "hello", chat=True, max_prompt_tokens=99)
    assert tokenizer.decode(prompt.ids) == "<s>user: hello assistant:"


@pytest.mark.parametrize("broken", ["{{ raise_exception('no users') }}", "{% if %}"])
def test_chat_templates_that_fail_are_one_line(tokenizer, broken):
    tokenizer.chat_template = broken
    with pytest.raises(SparseBalanceError, match=r": chat template: ") as caught:
        encode_prompt(tokenizer, "hello", chat=True, max_prompt_tokens=99)
    assert str(caught.value).endswith(
        "correct chat_template.jinja, or set evaluate.prompt_style to plain, as base models are "
        "asked."
    )
