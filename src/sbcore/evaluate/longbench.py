"""LongBench v1 and LongBench-E: tasks, averages, buckets (THUDM/LongBench: pred.py, eval.py)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sbcore.evaluate.tasks import Task

# task, category, language, metric, max_new_tokens, num_examples
_TABLE = (
    ("narrativeqa", "single_doc_qa", "en", "qa_f1", 128, 200),
    ("qasper", "single_doc_qa", "en", "qa_f1", 128, 200),
    ("multifieldqa_en", "single_doc_qa", "en", "qa_f1", 64, 150),
    ("multifieldqa_zh", "single_doc_qa", "zh", "qa_f1_zh", 64, 200),
    ("hotpotqa", "multi_doc_qa", "en", "qa_f1", 32, 200),
    ("2wikimqa", "multi_doc_qa", "en", "qa_f1", 32, 200),
    ("musique", "multi_doc_qa", "en", "qa_f1", 32, 200),
    ("dureader", "multi_doc_qa", "zh", "rouge_zh", 128, 200),
    ("gov_report", "summarization", "en", "rouge", 512, 200),
    ("qmsum", "summarization", "en", "rouge", 512, 200),
    ("multi_news", "summarization", "en", "rouge", 512, 200),
    ("vcsum", "summarization", "zh", "rouge_zh", 512, 200),
    ("trec", "few_shot", "en", "classification", 64, 200),
    ("triviaqa", "few_shot", "en", "qa_f1", 32, 200),
    ("samsum", "few_shot", "en", "rouge", 128, 200),
    ("lsht", "few_shot", "zh", "classification", 64, 200),
    ("passage_count", "synthetic", "en", "count", 32, 200),
    ("passage_retrieval_en", "synthetic", "en", "retrieval", 32, 200),
    ("passage_retrieval_zh", "synthetic", "zh", "retrieval_zh", 32, 200),
    ("lcc", "code", "code", "code_sim", 64, 500),
    ("repobench-p", "code", "code", "code_sim", 64, 500),
)

# LongBench-E: tasks with other examples, spread evenly over three buckets of `length`.
_LENGTH_BALANCED = {
    "qasper": 224,
    "multifieldqa_en": 150,
    "hotpotqa": 300,
    "2wikimqa": 300,
    "gov_report": 300,
    "multi_news": 294,
    "trec": 300,
    "triviaqa": 300,
    "samsum": 300,
    "passage_count": 300,
    "passage_retrieval_en": 300,
    "lcc": 300,
    "repobench-p": 300,
}

STANDARD = tuple(
    Task(
        name=name,
        category=category,
        language=language,
        metric=metric,
        max_new_tokens=max_new_tokens,
        num_examples=num_examples,
        first_line=category == "few_shot",
        chat=category not in ("few_shot", "code"),
        stop_at_newline=name == "samsum",
    )
    for name, category, language, metric, max_new_tokens, num_examples in _TABLE
)

TASKS = STANDARD + tuple(
    replace(task, name=f"{task.name}_e", num_examples=_LENGTH_BALANCED[task.name])
    for task in STANDARD
    if task.name in _LENGTH_BALANCED
)


def standard_name(name: str) -> str:
    """Returns the name of the task whose prompt and limits a LongBench-E task shares."""
    return name.removesuffix("_e")


def balanced_examples(name: str) -> int | None:
    """Returns the number of LongBench-E's examples of a task, None if it is not in that set.

    Prediction files of both sets bear the standard name when LongBench's own script wrote them.
    """
    return _LENGTH_BALANCED.get(standard_name(name))


def category_means(scores: Mapping[str, float], language: str) -> dict[str, float]:
    """Returns the mean score of each category, over its tasks in ``language`` and in code.

    Categories are in the table's order; one whose tasks are not all in ``scores`` is left out.
    """
    tasks = [task for task in STANDARD if task.language in (language, "code")]
    members = {task.category: [t for t in tasks if t.category == task.category] for task in tasks}
    return {
        category: _mean([scores[task.name] for task in group])
        for category, group in members.items()
        if all(task.name in scores for task in group)
    }


def averages(scores: Mapping[str, float]) -> dict[str, float]:
    """Returns the averages that these scores suffice for, by name.

    ``six_category_average`` (the one of LongBench's authors: English and code) and
    ``six_category_average_zh`` (Chinese and code) are means of category means;
    ``sixteen_task_mean`` is the plain mean of the English and code tasks, as many papers give it.
    """
    found = {}
    english, chinese = category_means(scores, "en"), category_means(scores, "zh")
    if len(english) == 6:
        found["six_category_average"] = _mean(list(english.values()))
    if len(chinese) == 6:
        found["six_category_average_zh"] = _mean(list(chinese.values()))
    sixteen = [task.name for task in STANDARD if task.language in ("en", "code")]
    if all(name in scores for name in sixteen):
        found["sixteen_task_mean"] = _mean([scores[name] for name in sixteen])
    return found


def length_bucket(length: float) -> str:
    """Returns LongBench-E's bucket of a record's ``length`` (words; characters in Chinese)."""
    if length < 4000:
        return "0-4k"
    return "4-8k" if length < 8000 else "8k+"


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 2)
