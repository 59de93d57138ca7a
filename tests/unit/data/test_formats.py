"""Each format of records, and the loss on the answers alone."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TURNS = [
    {"role": "user", "content": "q1"},
    {"role": "assistant", "content": "a1"},
    {"role": "user", "content": "q2"},
    {"role": "assistant", "content": "a2 é"},
]
CHAT = "<|user|>q1<|end|>\n<|assistant|>a1<|end|>\n<|user|>q2<|end|>\n<|assistant|>a2 é<|end|>\n"
EXCHANGE = "<|user|>p<|end|>\n<|assistant|>r<|end|>\n"
FORMATS = {
    "messages": ({"messages": TURNS}, CHAT, "a1<|end|>a2 é<|end|>"),
    "longalign": ({"messages": TURNS, "length": 9}, CHAT, "a1<|end|>a2 é<|end|>"),
    "prompt_response": ({"prompt": "p", "response": "r"}, EXCHANGE, "r<|end|>"),
    "longalpaca": ({"instruction": "p", "output": "r", "input": ""}, EXCHANGE, "r<|end|>"),
    "text": ({"text": "plain"}, "plain<|end|>", "lain<|end|>"),
    "chatqa2": (
        {"document": "d", "messages": [{"role": "user", "content": "q"}], "answers": ["r", "s"]},
        "<|user|>d\n\nq<|end|>\n<|assistant|>r<|end|>\n",
        "r<|end|>",
    ),
}


@pytest.mark.parametrize("template", ["headers", "marked"])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("asked", ["by name", "auto"])
def test_a_format_is_read_and_only_answers_are_targets(run, words, name, template, asked):
    record, text, targets = FORMATS[name]
    chosen = name if asked == "by name" else "auto"
    summary, store = run([record], tokenizer=template, format=chosen)
    assert words(store, 0) == (text, targets)
    assert summary.format == name
    assert summary.num_target_tokens == len(targets.replace("<|end|>", "!").encode())


def test_longalpaca_puts_the_input_below_the_instruction(run, words):
    _, store = run([{"instruction": "i", "input": "more", "output": "r"}])
    assert words(store, 0)[0] == "<|user|>i\n\nmore<|end|>\n<|assistant|>r<|end|>\n"


def test_chatqa2_question_that_holds_its_document_loses_the_speakers_names(run, words):
    question = "User: a long document\n\nwhat is it?\n\nAssistant:"
    summary, store = run([{"question": question, "answer": "this"}])
    text, targets = words(store, 0)
    assert text.startswith("<|user|>a long document\n\nwhat is it?<|end|>")
    assert (targets, summary.format) == ("this<|end|>", "chatqa2")


def test_without_a_template_prompt_and_response_are_put_together(run, words):
    _, store = run([{"prompt": "p: ", "response": "r"}], tokenizer="none")
    assert words(store, 0) == ("p: r<|end|>", "r<|end|>")


def test_gzip_and_parquet_give_the_same_samples_as_jsonl(run, tmp_path):
    records = [{"prompt": f"p{i}", "response": "r" * (i + 1)} for i in range(100)]
    _, plain = run(records)
    expected = [tuple(part.tolist() for part in plain.sample(i)) for i in range(100)]
    zipped, table = tmp_path / "d.jsonl.gz", tmp_path / "d.parquet"
    zipped.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in records).encode()))
    pq.write_table(pa.Table.from_pylist(records), table)
    for path in (zipped, table):
        _, store = run(path)
        assert [tuple(part.tolist() for part in store.sample(i)) for i in range(100)] == expected


def test_the_index_says_where_each_sample_came_from(run, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"text": "one"}\n\n{"text": "two"}\n')
    run(path)
    rows = pq.read_table(tmp_path / "out" / "index.parquet").to_pylist()
    assert [(r["source_file"], r["source_line"]) for r in rows] == [(str(path), 1), (str(path), 3)]
    assert [(r["sample_id"], r["offset"], r["num_tokens"]) for r in rows] == [(0, 0, 4), (1, 4, 4)]
