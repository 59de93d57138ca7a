"""The table of LongBench tasks, their averages and buckets."""

import json
from dataclasses import replace

import pytest

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.longbench import (
    STANDARD,
    TASKS,
    averages,
    balanced_examples,
    category_means,
    length_bucket,
    standard_name,
)
from sbcore.evaluate.metrics import METRICS
from sbcore.evaluate.scoring import first_line
from sbcore.evaluate.tasks import benchmark_tasks, find_task

# One published line, GPT-3.5-Turbo-16k: category means and their average.
GPT_MEANS = (39.8, 38.7, 26.5, 67.1, 54.1, 37.8)


def test_every_task_is_there_once():
    assert len(STANDARD) == 21
    assert sum(task.num_examples for task in STANDARD) == 4750
    assert len({task.name for task in TASKS}) == len(TASKS) == 21 + 13


def test_length_balanced_tasks_differ_in_examples_alone():
    by_name = {task.name: task for task in TASKS}
    balanced = [task for task in TASKS if task.name.endswith("_e")]
    assert sum(task.num_examples for task in balanced) == 3668
    for task in balanced:
        standard = by_name[standard_name(task.name)]
        assert replace(task, name=standard.name, num_examples=standard.num_examples) == standard
        assert balanced_examples(standard.name) == task.num_examples
    assert balanced_examples("musique") is None


def test_metrics_of_all_tasks_exist():
    assert {task.metric for task in benchmark_tasks().values()} <= set(METRICS)


def test_metrics_are_those_of_the_benchmarks_script():
    found = {
        metric: {task.name for task in STANDARD if task.metric == metric} for metric in METRICS
    }
    assert {metric: names for metric, names in found.items() if names} == {
        "qa_f1": {"narrativeqa", "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "musique"}
        | {"triviaqa"},
        "qa_f1_zh": {"multifieldqa_zh"},
        "rouge": {"gov_report", "qmsum", "multi_news", "samsum"},
        "rouge_zh": {"dureader", "vcsum"},
        "classification": {"trec", "lsht"},
        "retrieval": {"passage_retrieval_en"},
        "retrieval_zh": {"passage_retrieval_zh"},
        "count": {"passage_count"},
        "code_sim": {"lcc", "repobench-p"},
    }


def test_token_limits_are_those_shipped(real_data):
    shipped = json.loads((real_data / "longbench/config/dataset2maxlen.json").read_text())
    assert {task.name: task.max_new_tokens for task in STANDARD} == shipped


def test_six_tasks_are_asked_without_a_chat_template():
    without = {task.name for task in STANDARD if not task.chat}
    assert without == {"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"}


def test_first_line_rule():
    assert {t.name for t in STANDARD if t.first_line} == {"trec", "triviaqa", "samsum", "lsht"}
    assert first_line("\n\nRed\nQuestion: next") == "Red"
    assert first_line(" \nRed") == " "
    assert first_line("") == ""


def test_dialogue_summaries_alone_end_with_their_line():
    assert {task.name for task in TASKS if task.stop_at_newline} == {"samsum", "samsum_e"}


def test_average_is_over_categories_not_tasks():
    by_category = dict(
        zip(
            ("single_doc_qa", "multi_doc_qa", "summarization", "few_shot", "synthetic", "code"),
            GPT_MEANS,
            strict=True,
        )
    )
    scores = {task.name: by_category[task.category] for task in STANDARD}
    found = averages(scores)
    assert found["six_category_average"] == pytest.approx(44.0)
    sizes = {"single_doc_qa": 3, "multi_doc_qa": 3, "summarization": 3, "few_shot": 3}
    total = sum(sizes.get(name, 2) * value for name, value in by_category.items())
    assert found["sixteen_task_mean"] == round(total / 16, 2)
    assert found["six_category_average_zh"] == pytest.approx(44.0)


def test_averages_of_incomplete_scores_are_left_out():
    scores = {task.name: 50.0 for task in STANDARD if task.language != "zh"}
    assert set(averages(scores)) == {"six_category_average", "sixteen_task_mean"}
    del scores["lcc"]
    assert averages(scores) == {}
    assert "code" not in category_means(scores, "en")
    assert category_means(scores, "en")["few_shot"] == 50.0


def test_the_chinese_average_is_of_chinese_and_code_where_all_of_them_are_there():
    scores = {task.name: 20.0 if task.language == "zh" else 50.0 for task in STANDARD}
    assert averages(scores)["six_category_average_zh"] == 25.0  # five of 20, code of 50
    del scores["lsht"]
    assert set(averages(scores)) == {"six_category_average", "sixteen_task_mean"}


@pytest.mark.parametrize(
    ("length", "bucket"),
    [(0, "0-4k"), (3999, "0-4k"), (4000, "4-8k"), (7999, "4-8k"), (8000, "8k+")],
)
def test_length_buckets(length, bucket):
    assert length_bucket(length) == bucket


def test_unknown_task_offers_near_names():
    with pytest.raises(SparseBalanceError, match=r"here: task = 'hotpot_qa'.*Did you mean 'hotpot"):
        find_task("hotpot_qa", {}, place="here", groups=())
