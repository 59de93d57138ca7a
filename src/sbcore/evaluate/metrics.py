"""The table of metrics: each maps (prediction, answers, classes) to 0..1.

LongBench metrics compare with one answer and take the best of several; RULER's look at all answers
together. Classes are the labels of a classification task, empty elsewhere.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from sbcore.errors import SparseBalanceError, unknown_name
from sbcore.evaluate.answer_f1 import qa_f1, qa_f1_zh
from sbcore.evaluate.code_similarity import code_sim, code_sim_indel
from sbcore.evaluate.matching import (
    classification,
    count,
    exact,
    match_all,
    match_part,
    retrieval,
    retrieval_zh,
)
from sbcore.evaluate.multiple_choice import multiple_choice
from sbcore.evaluate.rouge_l import rouge, rouge_zh

Metric = Callable[[str, Sequence[str], Sequence[str]], float]


def _best(compare: Callable[[str, str], float]) -> Metric:
    def metric(prediction: str, answers: Sequence[str], _classes: Sequence[str]) -> float:
        return max(0.0, *(compare(prediction, answer) for answer in answers))

    return metric


def _whole(compare: Callable[[str, Sequence[str]], float]) -> Metric:
    def metric(prediction: str, answers: Sequence[str], _classes: Sequence[str]) -> float:
        return compare(prediction, answers)

    return metric


def _best_class(prediction: str, answers: Sequence[str], classes: Sequence[str]) -> float:
    if not classes:
        raise ValueError("all_classes is empty. give the labels that the task chooses from")
    return max(0.0, *(classification(prediction, answer, classes) for answer in answers))


METRICS: dict[str, Metric] = {
    "qa_f1": _best(qa_f1),
    "qa_f1_zh": _best(qa_f1_zh),
    "rouge": _best(rouge),
    "rouge_zh": _best(rouge_zh),
    "classification": _best_class,
    "retrieval": _best(retrieval),
    "retrieval_zh": _best(retrieval_zh),
    "count": _best(count),
    "code_sim": _best(code_sim),
    "code_sim_indel": _best(code_sim_indel),
    "exact": _best(exact),
    "multiple_choice": _best(multiple_choice),
    "match_all": _whole(match_all),
    "match_part": _whole(match_part),
}


PACKAGES = {"rouge": ("rouge",), "rouge_zh": ("rouge", "jieba"), "qa_f1_zh": ("jieba",)}
"""What metrics need beyond the standard library."""


def require_packages(metric: str, *, place: str) -> None:
    """Refuses a metric whose packages are not there, before anything is made for nothing.

    Raises:
        SparseBalanceError: A package cannot be imported; ``place`` says what asked for it.
    """
    for package in PACKAGES.get(metric, ()):
        if find_spec(package) is None:
            raise SparseBalanceError(
                f"{place}: metric = {metric}: needs the package {package}. pip install {package}, "
                "or leave the task out here and score its predictions elsewhere."
            )


def find_metric(name: str, *, place: str) -> Metric:
    """Returns the metric of this name.

    Raises:
        SparseBalanceError: No such metric; ``place`` says where it was asked for and near names
            are offered.
    """
    if name not in METRICS:
        raise SparseBalanceError(f"{place}: {unknown_name('metric', name, METRICS)}")
    return METRICS[name]
