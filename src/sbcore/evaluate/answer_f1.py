"""Bag-of-words F1 between a prediction and an answer, as LongBench v1 counts it (metrics.py)."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
# The set is part of the metric: another set of signs gives other scores.
_CHINESE_PUNCTUATION = str.maketrans(
    "",
    "",
    string.punctuation
    + "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～"  # noqa: RUF001
    + "｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏.",  # noqa: RUF001
)


def qa_f1(prediction: str, answer: str) -> float:
    """Returns the F1 of words, 0..1; case, punctuation and English articles do not count."""
    return _bag_f1(_english_words(prediction), _english_words(answer))


def qa_f1_zh(prediction: str, answer: str) -> float:
    """Returns the F1 of jieba's words, 0..1; case, punctuation and blanks do not count."""
    return _bag_f1(_chinese_words(prediction), _chinese_words(answer))


def _english_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_ASCII_PUNCTUATION)).split()


def _chinese_words(text: str) -> list[str]:
    from sbcore.evaluate.chinese import cut_words

    cleaned = (word.lower().translate(_CHINESE_PUNCTUATION) for word in cut_words(text))
    joined = ("".join(word.split()) for word in cleaned)
    return [word for word in joined if word]


def _bag_f1(predicted: Sequence[str], wanted: Sequence[str]) -> float:
    num_same = (Counter(predicted) & Counter(wanted)).total()
    if num_same == 0:
        return 0.0
    precision = num_same / len(predicted)
    recall = num_same / len(wanted)
    return (2 * precision * recall) / (precision + recall)
