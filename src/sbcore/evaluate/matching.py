"""Metrics that look for labels, numbers or values in a prediction."""

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"\d+")


def classification(prediction: str, answer: str, all_classes: Sequence[str]) -> float:
    """Returns 1 / (class names found in the prediction) if the answer is one of them, else 0.

    Names that are part of the answer do not count against it. The list shrinks while it is walked
    over, so the name after a removed one is passed by and stays: the official scores depend on it.
    """
    matches = [name for name in all_classes if name in prediction]
    for name in matches:
        if name in answer and name != answer:
            matches.remove(name)
    return 1.0 / len(matches) if answer in matches else 0.0


def count(prediction: str, answer: str) -> float:
    """Returns the share of the numbers in the prediction that equal the answer; 0 without any."""
    numbers = _NUMBER.findall(prediction)
    return numbers.count(answer) / len(numbers) if numbers else 0.0


def retrieval(prediction: str, answer: str) -> float:
    """Returns the share of numbers equal to that of ``Paragraph N`` in the answer.

    Raises:
        ValueError: The answer names no paragraph.
    """
    return count(prediction, _paragraph(answer, "Paragraph "))


def retrieval_zh(prediction: str, answer: str) -> float:
    """Returns the share of numbers equal to that of ``段落N`` in the answer.

    Raises:
        ValueError: The answer names no paragraph.
    """
    return count(prediction, _paragraph(answer, "段落"))


def match_all(prediction: str, answers: Sequence[str]) -> float:
    """Returns the share of the answers that occur in the prediction, case ignored (RULER)."""
    folded = prediction.lower()
    return sum(answer.lower() in folded for answer in answers) / len(answers)


def match_part(prediction: str, answers: Sequence[str]) -> float:
    """Returns 1 if any of the answers occurs in the prediction, case ignored, else 0 (RULER)."""
    folded = prediction.lower()
    return float(any(answer.lower() in folded for answer in answers))


def exact(prediction: str, answer: str) -> float:
    """Returns 1 if prediction and answer are equal but for blanks at their ends, else 0."""
    return float(prediction.strip() == answer.strip())


def _paragraph(answer: str, label: str) -> str:
    found = re.search(re.escape(label) + r"(\d+)", answer)
    if found is None:
        raise ValueError(f"'{answer}' names no paragraph. write it as '{label}' and a number")
    return found.group(1)
