"""The letter that a prediction names, as LongBench v2 reads it (THUDM/LongBench: pred.py)."""

import re

_ANSWERS = (
    re.compile(r"The correct answer is \(([A-D])\)"),
    re.compile(r"The correct answer is ([A-D])"),
)


def chosen(prediction: str) -> str | None:
    """Returns the letter that a prediction names as the correct answer, None if it names none."""
    plain = prediction.replace("*", "")
    for pattern in _ANSWERS:
        if found := pattern.search(plain):
            return found.group(1)
    return None


def multiple_choice(prediction: str, answer: str) -> float:
    """Returns 1 if the prediction names the answer's letter, else 0."""
    return float(chosen(prediction) == answer)
