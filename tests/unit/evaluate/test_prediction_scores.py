"""Scoring prediction files: the published scores, the output, and bad input."""

import gzip
import json
import re

import pytest

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.longbench import STANDARD
from sbcore.evaluate.metrics import METRICS
from sbcore.evaluate.rows import PredictionRow, read_rows
from sbcore.evaluate.scores import (
    _summary,
    print_scores_json,
    print_scores_table,
    score_predictions,
)

GOOD = {"pred": "Red fox", "answers": ["red fox"], "all_classes": None, "length": 10}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def published(real_data):
    return json.loads((real_data / "longbench_predictions/expected_scores.json").read_text())


def test_published_scores_are_reproduced_to_the_last_digit(real_data, published):
    scores = score_predictions(real_data / "longbench_predictions")
    assert len(scores.scores) == 16
    assert scores.scores == {task: published["published"][task] for task in scores.scores}
    assert scores.notices == []


@pytest.mark.parametrize("task", ["lcc", "repobench-p"])
def test_indel_form_gives_the_scores_of_an_installed_c_library(real_data, published, task):
    rows = read_rows(real_data / f"longbench_predictions/{task}.jsonl.gz", PredictionRow)
    metric = METRICS["code_sim_indel"]
    total = sum(metric(row.pred, row.answers, ()) for row in rows)
    expected = published["recomputed_with_official_metrics"]["levenshtein"][task]
    assert round(100 * total / len(rows), 2) == expected


def test_plain_and_gzip_files(tmp_path):
    write(tmp_path / "qasper.jsonl", GOOD, {**GOOD, "pred": "blue"}, {**GOOD, "pred": "red"})
    with gzip.open(tmp_path / "trec.jsonl.gz", "wt") as file:
        file.write(json.dumps({**GOOD, "answers": ["Red"], "all_classes": ["Red", "Blue"]}))
    (tmp_path / "result.json").write_text("{}")
    scores = score_predictions(tmp_path)
    assert scores.scores == {"qasper": 55.56, "trec": 100.0}
    assert [notice.split(":")[0] for notice in scores.notices] == ["qasper", "trec"]


def test_json_output_is_scores_alone(tmp_path, capsys):
    write(tmp_path / "qasper.jsonl", GOOD)
    print_scores_json(score_predictions(tmp_path))
    out, err = capsys.readouterr()
    assert json.loads(out) == {"scores": {"qasper": 100.0}}
    assert "qasper: 1 rows, the task has 200: partial" in err


def test_table_output_names_the_task_and_both_row_counts(tmp_path, capsys):
    rows = [
        {**GOOD, "pred": "3", "answers": ["Paragraph 3"], "length": 3000 * i} for i in (1, 2, 3)
    ]
    write(tmp_path / "passage_retrieval_en.jsonl", *rows)
    write(tmp_path / "trec.jsonl", {**GOOD, "all_classes": ["Red"]})
    (tmp_path / "tasks.json").write_text(
        '{"own": {"metric": "exact", "max_new_tokens": 1, "template": "{input}"}}'
    )
    write(tmp_path / "own.jsonl", {**GOOD, "answers": ["Red fox"]})
    print_scores_table(score_predictions(tmp_path))
    out = capsys.readouterr().out
    wide = r"passage_retrieval_en +retrieval +3/200" + r" +100\.00" * 4
    assert re.search(wide, out)
    assert re.search(r"trec +classification +1/200", out)
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"own +exact +1 +100\.00", out)


def test_buckets_by_length(tmp_path):
    write(tmp_path / "qasper.jsonl", GOOD, {**GOOD, "pred": "x", "length": 4000})
    write(tmp_path / "musique.jsonl", GOOD)  # not in LongBench-E
    (musique, qasper) = sorted(score_predictions(tmp_path).tasks, key=lambda each: each.task.name)
    assert qasper.buckets == {"0-4k": 100.0, "4-8k": 0.0, "8k+": None}
    assert musique.buckets is None


def test_a_length_of_nothing_is_a_length(tmp_path):
    write(tmp_path / "qasper.jsonl", {**GOOD, "length": 0}, {**GOOD, "pred": "x", "length": None})
    (entry,) = score_predictions(tmp_path).tasks
    assert entry.buckets == {"0-4k": 100.0, "4-8k": None, "8k+": None}
    assert entry.score == 50.0


def test_of_few_shot_answers_the_first_line_alone_is_scored(tmp_path):
    """The model goes on with examples of its own."""
    lines = {**GOOD, "pred": "\n\nRed\nBlue", "answers": ["Red"], "all_classes": ["Red", "Blue"]}
    write(tmp_path / "trec.jsonl", lines)
    write(tmp_path / "qasper.jsonl", {**GOOD, "pred": "red\nfox"})
    assert score_predictions(tmp_path).scores == {"qasper": 100.0, "trec": 100.0}


def test_notices_count_the_rows_of_either_set(tmp_path):
    write(tmp_path / "multi_news.jsonl", *[GOOD] * 294)  # LongBench-E as its script names it
    write(tmp_path / "multi_news_e.jsonl", *[GOOD] * 294)
    write(tmp_path / "musique.jsonl", *[GOOD] * 400)
    (notice,) = score_predictions(tmp_path).notices
    assert notice == "musique: 400 rows, the task has 200: too many, perhaps written twice."


def test_rows_without_length_are_scored(tmp_path):
    write(tmp_path / "qasper.jsonl", {k: v for k, v in GOOD.items() if k != "length"})
    assert score_predictions(tmp_path).scores == {"qasper": 100.0}


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({k: v for k, v in GOOD.items() if k != "pred"}, "pred: field required"),
        ({**GOOD, "pred": None}, "pred = null"),
        ({**GOOD, "answers": []}, "answers = "),
        ({**GOOD, "answers": "red fox"}, 'answers = "red fox"'),
        ({**GOOD, "answers": [1]}, "answers.0 = 1"),
        ({**GOOD, "all_classes": "x"}, "all_classes = "),
        ({**GOOD, "length": "10"}, "length = "),
        ([1, 2], "row = "),
    ],
)
def test_wrong_field_names_file_and_line(tmp_path, row, wrong):
    write(tmp_path / "qasper.jsonl", GOOD, row)
    with pytest.raises(SparseBalanceError) as caught:
        score_predictions(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/qasper.jsonl:2: {wrong}")
    assert "\n" not in str(caught.value)


def test_broken_json_names_file_and_line(tmp_path):
    (tmp_path / "qasper.jsonl").write_text(json.dumps(GOOD) + '\n{"pred": 1\n')
    with pytest.raises(SparseBalanceError, match=r"qasper\.jsonl:2: not JSON: .* \(column 12\)\."):
        score_predictions(tmp_path)


def test_labels_missing_for_classification(tmp_path):
    write(tmp_path / "trec.jsonl", GOOD)
    with pytest.raises(SparseBalanceError, match=r"trec\.jsonl: row 1: all_classes is empty"):
        score_predictions(tmp_path)


def test_unknown_task_offers_near_names(tmp_path):
    write(tmp_path / "hotpot-qa.jsonl", GOOD)
    with pytest.raises(SparseBalanceError, match="Did you mean 'hotpotqa'"):
        score_predictions(tmp_path)


CUT_OFF = gzip.compress(b"{}\n" * 99, mtime=0)[:-12]


def test_packages_that_are_missing(tmp_path, monkeypatch):
    write(tmp_path / "qmsum.jsonl", GOOD)
    monkeypatch.setattr("sbcore.evaluate.metrics.find_spec", lambda name: None)
    with pytest.raises(SparseBalanceError) as caught:
        score_predictions(tmp_path)
    place = f"{tmp_path}/qmsum.jsonl: metric = rouge: needs the package rouge. "
    assert str(caught.value).startswith(place)


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("qasper.jsonl", b"", "no rows in it"),
        ("qasper.jsonl", b"\xff\xfe", "cannot be read"),
        ("qasper.jsonl.gz", b"plain", "cannot be read"),
        (
            "qasper.jsonl.gz",
            gzip.compress(b"{}\n" * 99, mtime=0)[:-12],
            "cannot be read|field required",
        ),
    ],
)
def test_unreadable_files(tmp_path, name, content, wrong):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SparseBalanceError, match=wrong):
        score_predictions(tmp_path)


@pytest.mark.parametrize(("count", "named"), [(1, "a"), (3, "a, b, c"), (4, "a, b, c, ...")])
def test_what_is_not_finished_is_no_score(tmp_path, count, named):
    for name in "abcd"[:count]:
        (tmp_path / f"{name}.jsonl.partial").touch()
    said = (
        f"{count} tasks of an evaluation are not finished ({named}). let it finish, or run it "
        "again: it goes on where it was."
    )
    with pytest.raises(SparseBalanceError) as caught:
        score_predictions(tmp_path)
    assert str(caught.value) == f"{tmp_path}: nothing to score: {said}"
    write(tmp_path / "qasper.jsonl", *[GOOD] * 200)
    found = score_predictions(tmp_path)
    assert (found.scores, found.notices) == ({"qasper": 100.0}, [f"partial: {said}"])


def test_described_tasks_come_first_and_the_benchmarks_in_their_own_order(tmp_path):
    entry = {"metric": "exact", "max_new_tokens": 1, "template": "{input}"}
    (tmp_path / "tasks.json").write_text(json.dumps({"z": entry, "y": entry}))
    for name in ("hotpotqa", "z", "narrativeqa", "y", "2wikimqa"):
        write(tmp_path / f"{name}.jsonl", GOOD)
    assert list(score_predictions(tmp_path).scores) == [
        "z",
        "y",
        "narrativeqa",
        "hotpotqa",
        "2wikimqa",
    ]


def test_every_mean_that_the_scores_suffice_for_is_shown_once():
    shown = _summary({task.name: 20.0 if task.language == "zh" else 50.0 for task in STANDARD})
    categories = ("single_doc_qa", "multi_doc_qa", "summarization", "few_shot", "synthetic")
    assert shown == {
        **{f"mean of {name}": 50.0 for name in (*categories, "code")},
        **{f"mean of {name} (zh)": 20.0 for name in categories},
        "six_category_average": 50.0,
        "six_category_average_zh": 25.0,
        "sixteen_task_mean": 50.0,
    }


def test_folder_missing_empty_or_ambiguous(tmp_path):
    with pytest.raises(SparseBalanceError, match="no such folder"):
        score_predictions(tmp_path / "nowhere")
    with pytest.raises(
        SparseBalanceError, match=r"no TASK\.jsonl.* put one file per task there\.$"
    ):
        score_predictions(tmp_path)
    write(tmp_path / "qasper.jsonl", GOOD)
    (tmp_path / "qasper.jsonl.gz").write_bytes(gzip.compress(b"{}"))
    with pytest.raises(SparseBalanceError, match="both exist"):
        score_predictions(tmp_path)
