"""ROUGE-L of the package ``rouge`` 1.0.1, the one LongBench v1 uses.

It cuts sentences at "." and takes its own union of common subsequences: other ROUGE packages give
other numbers. About 15 ms for a pair of 400-word summaries.
"""

from concurrent.futures import ThreadPoolExecutor


def rouge(prediction: str, answer: str) -> float:
    """Returns ROUGE-L F1, 0..1; what the package cannot score (an empty prediction) is 0.

    The package recurses over the words of a sentence and gives up at Python's recursion limit,
    which the benchmark scores 0. A thread of its own makes that limit the same for every caller.
    """
    with ThreadPoolExecutor(max_workers=1) as fresh_stack:
        return fresh_stack.submit(_rouge_l_f1, prediction, answer).result()


def rouge_zh(prediction: str, answer: str) -> float:
    """Returns ROUGE-L F1 of jieba's words, 0..1."""
    from sbcore.evaluate.chinese import cut_words

    return rouge(" ".join(cut_words(prediction)), " ".join(cut_words(answer)))


def _rouge_l_f1(prediction: str, answer: str) -> float:
    from rouge import Rouge

    try:
        scores = Rouge(metrics=["rouge-l"]).get_scores([prediction], [answer], avg=True)
    except (ValueError, RecursionError):
        return 0.0
    return float(scores["rouge-l"]["f"])
