"""Bad input: one line that says where, what and what to do; and nothing half-written."""

import gzip
import json
import re

import pytest

from sbcore.data.records import BadRecord
from sbcore.errors import SparseBalanceError

GOOD = {"prompt": "p", "response": "r"}

BROKEN_LINES = {
    "{broken": (
        r"data.jsonl:2: \{broken: not json: Expecting [^:]* \(column 2\)\. correct the line, or ",
        "not_json",
    ),
    '{"prompt": 1': (
        r"data.jsonl:2: [^:]*: 1: not json: Expecting ',' delimiter \(column 14\)\. correct ",
        "not_json",
    ),
    "[1, 2]": (r"data.jsonl:2: \[1, 2\]: not an object\. write one JSON object ", "not_an_object"),
    '{"prompt": "p"}': (r"data.jsonl:2: response: missing \(fields: prompt\)\. ", "wrong_fields"),
    '{"prompt": 3, "response": "r"}': (r"data.jsonl:2: prompt = 3: not a text\. ", "wrong_fields"),
    '{"prompt": "\\ud800", "response": "r"}': (
        r"data.jsonl:2: prompt = '\\ud800': holds half of a character\. ",
        "wrong_fields",
    ),
}


@pytest.fixture
def broken(tmp_path):
    """A file whose second line is the given one."""

    def broken_(line: str):
        path = tmp_path / "data.jsonl"
        path.write_text(f"{json.dumps(GOOD)}\n{line}\n{json.dumps(GOOD)}\n")
        return path

    return broken_


@pytest.mark.parametrize("line", BROKEN_LINES)
def test_a_broken_line_is_named_with_the_way_out(run, broken, tmp_path, line):
    pattern, reason = BROKEN_LINES[line]
    with pytest.raises(BadRecord, match=pattern) as caught:
        run(broken(line))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("data.on_bad_line to skip.")
    assert caught.value.reason == reason
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("line", BROKEN_LINES)
def test_a_broken_line_is_skipped_and_counted_when_asked(run, broken, line):
    summary, store = run(broken(line), on_bad_line="skip")
    assert summary.num_skipped == {BROKEN_LINES[line][1]: 1}
    assert len(store) == 2


MESSAGES = {
    "no list": ("hello", r"messages = 'hello': not a list of turns\. give role and content"),
    "empty": ([], r"messages = \[\]: not a list of turns"),
    "no turn": (["hi"], r"messages\[0\] = 'hi': not a turn\. give an object"),
    "role": ([{"role": "bot", "content": "x"}], r"messages\[0\].role = 'bot': unknown\. use one"),
    "content": ([{"role": "user"}], r"messages\[0\].content = None: not a text\. give a string"),
    "first": ([{"role": "assistant", "content": "x"}], r"messages: the chat template refuses"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_wrong_messages_are_named(run, name):
    messages, pattern = MESSAGES[name]
    with pytest.raises(BadRecord, match=rf"data.jsonl:1: {pattern}"):
        run([{"messages": messages}])


def test_messages_without_a_template_are_refused(run):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}] * 2
    with pytest.raises(BadRecord, match=r"jsonl:1: messages = 4 turns: the tokenizer has no chat"):
        run([{"messages": turns}], tokenizer="none")


def test_a_sample_without_an_answer_is_named(run):
    question = {"messages": [{"role": "user", "content": "q"}]}
    with pytest.raises(BadRecord, match=r"data.jsonl:1: num_target_tokens = 0: nothing to predict"):
        run([question])


def test_ids_may_not_repeat_within_a_file(run):
    with pytest.raises(
        BadRecord, match=r"data.jsonl:2: id = x: occurs twice in this file\. remove"
    ):
        run([GOOD | {"id": "x"}, GOOD | {"id": "x"}])
    summary, _ = run([GOOD | {"_id": 1}, GOOD | {"_id": 1}], on_bad_line="skip")
    assert summary.num_skipped == {"duplicate_id": 1}


def test_unknown_fields_list_the_formats(run):
    with pytest.raises(
        SparseBalanceError, match=r"jsonl:1: fields = a, b: no known format\. rename"
    ):
        run([{"a": 1, "b": 2}])


FILES = {
    "missing.jsonl": (None, r"missing.jsonl: no such file\. correct data.files\."),
    "table.csv": (b"a,b\n", r"table.csv: '.csv' is not a known ending\. give .jsonl, "),
    "array.json": (b"[]", r"array.json: '.json' is not a known .* jq -c '\.\[\]' turns"),
    "empty.jsonl": (b"\n\n", r"data.files = \S+empty.jsonl: empty data set\. give records"),
    "table.parquet": (b"PAR1", r"table.parquet: cannot be read: .* copy it again\."),
    "cut.jsonl.gz": (
        gzip.compress(b'{"text": "abc"}\n' * 999, mtime=0)[:40],
        r"cut.jsonl.gz: cannot be read: .*end-of-stream marker.* copy it again\.",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_cannot_be_read_are_named(run, tmp_path, name):
    content, pattern = FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SparseBalanceError, match=pattern):
        run(tmp_path / name)
    assert not (tmp_path / "out" / "tokens.bin").exists()


def test_a_data_set_of_nothing_but_skipped_lines_says_so(run):
    pattern = r"all records are left out \(wrong_fields 2\)\. give records"
    with pytest.raises(SparseBalanceError, match=pattern):
        run([{"prompt": 1, "response": 2}] * 2, on_bad_line="skip")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (None, "no such folder"),
        ({}, "not a tokenizer: none of tokenizer.json"),
        ({"tokenizer.json": "{}"}, "not a tokenizer: "),
        ({"tokenizer_config.json": "[]"}, "not a tokenizer: "),
    ],
)
def test_a_folder_that_is_no_tokenizer_is_refused(run, tokenizers, tmp_path, files, problem):
    folder = tokenizers["bad"] = tmp_path / "model"
    if files is not None:
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    pattern = rf"^data.tokenizer = {re.escape(str(folder))}: {problem}.*give the directory of"
    with pytest.raises(SparseBalanceError, match=pattern) as caught:
        run([GOOD], tokenizer="bad")
    assert "\n" not in str(caught.value)
