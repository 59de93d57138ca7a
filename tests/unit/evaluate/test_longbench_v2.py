"""LongBench v2: prompts as the benchmark forms them, the letter it reads, its groups."""

import json

import pytest

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.longbench_v2 import make_longbench_v2, score_longbench_v2
from sbcore.evaluate.multiple_choice import chosen
from sbcore.evaluate.predictions import row_of
from sbcore.evaluate.prompts import fill_template
from sbcore.evaluate.rows import PredictionRow
from sbcore.evaluate.scores import score_predictions
from sbcore.evaluate.scoring import score_rows
from sbcore.evaluate.task_folder import load_tasks

TEMPLATE = "Text {1}:\n$DOC$\n\nQuestion: $Q$\n(A) $C_A$\n(B) $C_B$\n(C) $C_C$\n(D) $C_D$\nGo {}:\n"
GROUPS = [("easy", "short"), ("easy", "medium"), ("hard", "long"), ("hard", "long")]


def record(index, difficulty, length):
    return {
        "_id": f"id{index}",
        "domain": f"domain {index % 2}",
        "sub_domain": "s",
        "difficulty": difficulty,
        "length": length,
        "question": f" What is {index}?\n",
        **{f"choice_{letter}": f"{letter} {{x}} " for letter in "ABCD"},
        "answer": "ABCD"[index],
        "context": f"  Some {{braces}} of\ntext {index} ",
    }


RECORDS = [record(index, *group) for index, group in enumerate(GROUPS)]


def official_prompt(item):
    """Plain replacement of the marks, stripped, as the benchmark's script forms prompts."""
    text = TEMPLATE.replace("$DOC$", item["context"].strip())
    text = text.replace("$Q$", item["question"].strip())
    for letter in "ABCD":
        text = text.replace(f"$C_{letter}$", item[f"choice_{letter}"].strip())
    return text


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "prompts").mkdir(parents=True)
    (folder / "prompts" / "0shot.txt").write_text(TEMPLATE)
    (folder / "data.json").write_text(json.dumps(RECORDS))
    return folder


@pytest.fixture
def loaded(source, tmp_path):
    names = make_longbench_v2(tmp_path / "tasks", source=source)
    return load_tasks([tmp_path / "tasks"], names, max_examples=99)[0]


@pytest.fixture
def score(loaded, tmp_path):
    def run(texts):
        rows = [row_of(text, row) for text, row in zip(texts, loaded.rows, strict=False)]
        (tmp_path / "eval").mkdir()
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "eval" / "longbench_v2.jsonl").write_text(lines)
        return score_longbench_v2([loaded], prediction_dir=tmp_path / "eval", out=tmp_path / "eval")

    return run


def test_prompts_are_the_benchmarks(loaded):
    prompts = [fill_template(loaded.template, row, place="here") for row in loaded.rows]
    assert prompts == [official_prompt(item) for item in RECORDS]
    assert [row.length for row in loaded.rows] == [5] * 4  # words of the text
    assert loaded.task.max_new_tokens == 128
    assert loaded.task.chat
    assert loaded.chance == 25


def test_json_lines_are_read_too(source, loaded, tmp_path):
    (source / "data.json").unlink()
    (source / "data.jsonl").write_text("".join(json.dumps(item) + "\n" for item in RECORDS))
    make_longbench_v2(tmp_path / "again", source=source)
    name = "longbench_v2.jsonl"
    assert (tmp_path / "again" / name).read_text() == (tmp_path / "tasks" / name).read_text()


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("The correct answer is (B).", "B"),
        ("Well. **The correct answer is (C)** since", "C"),
        ("The correct answer is **(C)**", "C"),
        ("The correct answer is D", "D"),
        ("The correct answer is A. No: The correct answer is (B)", "B"),
        ("The correct answer is (A) or The correct answer is (B)", "A"),
        ("the correct answer is (A)", None),
        ("The correct answer is (E)", None),
        ("The correct answer is E", None),
        ("(A)", None),
        ("", None),
    ],
)
def test_letters_are_read_as_the_benchmark_reads_them(prediction, letter):
    assert chosen(prediction) == letter


def test_scores_by_group(score, tmp_path):
    found = score(
        [
            "The correct answer is (A)",
            "no idea",
            "The correct answer is C",
            "The correct answer is B",
        ]
    )
    assert found == {
        "overall": 50,
        "easy": 50,
        "hard": 50,
        "short": 100,
        "medium": 0,
        "long": 50,
        "domains": {"domain 0": 100, "domain 1": 0},
        "num_examples": 4,
        "num_unanswered": 1,
        "chance": 25,
    }
    assert found == json.loads((tmp_path / "eval" / "longbench_v2.json").read_text())


def test_groups_without_examples_have_no_score(score):
    found = score(["The correct answer is (A)"])
    assert (found["num_examples"], found["short"], found["medium"], found["hard"]) == (
        1,
        100,
        None,
        None,
    )


def test_scores_are_the_benchmarks_own(loaded, score, tmp_path):
    texts = [f"The correct answer is ({letter})." for letter in "ABCA"]
    rows = [
        PredictionRow.model_validate(row_of(text, row))
        for text, row in zip(texts, loaded.rows, strict=True)
    ]
    assert score_rows(loaded.task, rows, loaded.path).score == 75
    score(texts)
    found = score_predictions(tmp_path / "eval")  # no tasks.json beside them
    assert found.scores == {"longbench_v2": 75}
    assert found.notices == ["longbench_v2: 4 rows, the task has 503: partial."]


def test_evaluation_leaves_the_groups(loaded, make_config, ask, tmp_path):
    result = ask(make_config(tasks=["longbench_v2"]), tmp_path / "tasks", tmp_path / "eval")
    found = json.loads((tmp_path / "eval/longbench_v2.json").read_text())
    assert found["overall"] == result["scores"]["longbench_v2"]
    assert (found["num_examples"], found["num_unanswered"]) == (4, 4)


def test_bad_folders(source, tmp_path):
    out = tmp_path / "out"
    (source / "data.json").write_text(json.dumps([RECORDS[0], RECORDS[1] | {"answer": "E"}]))
    with pytest.raises(SparseBalanceError, match=r'data\.json: record 1\.answer = "E"'):
        make_longbench_v2(out, source=source)
    (source / "data.json").write_text("[]")
    with pytest.raises(SparseBalanceError, match=r"data\.json: file = \[\]: list should have at"):
        make_longbench_v2(out, source=source)
    (source / "data.json").write_text("[")
    with pytest.raises(SparseBalanceError, match=r"data\.json: file: invalid json"):
        make_longbench_v2(out, source=source)
    (source / "data.jsonl").write_text("")
    with pytest.raises(SparseBalanceError, match=r"data\.json and data\.jsonl both exist\. remove"):
        make_longbench_v2(out, source=source)
    (source / "data.jsonl").unlink()
    (source / "data.json").unlink()
    with pytest.raises(SparseBalanceError, match=r"data\.json: missing"):
        make_longbench_v2(out, source=source)
    (source / "prompts" / "0shot.txt").write_text("$DOC$")
    with pytest.raises(SparseBalanceError, match=r"\$Q\$: missing"):
        make_longbench_v2(out, source=source)
    with pytest.raises(SparseBalanceError, match=r"0shot\.txt: missing"):
        make_longbench_v2(out, source=tmp_path)
    assert not out.exists()
