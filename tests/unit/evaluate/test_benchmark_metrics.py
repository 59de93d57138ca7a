"""Metrics against cases worked out by hand from the benchmark's definition."""

import pytest

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.metrics import METRICS, find_metric

LABELS = ["Food", "Other entity", "Other", "entity", "Date"]


def score(metric, prediction, answers, classes=()):
    return METRICS[metric](prediction, answers, classes)


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("The cat, a dog.", "cat dog", 1.0),  # case, articles and punctuation do not count
        ("cat", "cat dog", 2 / 3),
        ("cat", "cat cat", 2 / 3),
        ("cat cat", "cat cat", 1.0),
        ("cat—the—dog", "cat— —dog", 1.0),  # an article leaves a blank
        ("cat cat cat", "cat", 1 / 2),  # a word is matched as often as the answer has it
        ("an owl in an elm", "owl in elm", 1.0),
        ("another theory", "other theory", 1 / 2),  # articles are whole words only
        ("well-known", "well known", 0.0),  # punctuation joins, it does not split
        ("", "cat", 0.0),
        ("the", "a", 0.0),  # nothing is left of either
    ],
)
def test_qa_f1(prediction, answer, expected):
    assert score("qa_f1", prediction, [answer]) == pytest.approx(expected, abs=1e-12)


def test_best_of_several_answers():
    assert score("qa_f1", "red fox", ["wolf", "red fox", "red"]) == 1.0


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("北京大学。", "北京大学", 1.0),
        ("他在北京", "北京", 2 * (1 / 3) / (1 / 3 + 1)),  # 他 在 北京
        ("我 在", "我在", 1.0),  # blanks are no words
        ("ABC》", "abc", 1.0),
        ("《ABC", "abc", 2 / 3),  # the official set of signs lacks this one
        ("", "北京", 0.0),
        ("。，", "！", 0.0),  # noqa: RUF001
    ],
)
def test_qa_f1_zh(prediction, answer, expected):
    assert score("qa_f1_zh", prediction, [answer]) == pytest.approx(expected, abs=1e-12)


def test_rouge_counts_union_of_common_subsequences():
    # r_1 = a b c d e against "a b x" and "a c e": union a b c e, 4 of 5 words; 5 different words
    # are predicted, so precision is 4 / 5 as well.
    assert score("rouge", "a b x. a c e", ["a b c d e"]) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("prediction", ["", "...", "."])
def test_rouge_of_nothing_is_zero(prediction):
    assert score("rouge", prediction, ["some words"]) == 0.0


def test_rouge_weighs_what_was_predicted_against_what_was_wanted():
    assert score("rouge", "a b", ["a b c d"]) == pytest.approx(2 / 3, abs=1e-6)  # 1 and 1 / 2
    # r_1 = c a has a word in common with "a c", r_2 = a none beyond it; the other way round
    # "a c" has both of its words in common with one or the other sentence.
    assert score("rouge", "a c", ["c a. a"]) == pytest.approx(1 / 2, abs=1e-6)
    assert score("rouge", "c a. a", ["a c"]) == pytest.approx(1.0, abs=1e-6)


def test_rouge_splits_sentences_at_full_stops():
    # The order of sentences does not matter, the order of words within one does.
    assert score("rouge", "c d. a b", ["a b. c d"]) == pytest.approx(1.0, abs=1e-6)
    assert score("rouge", "c d a b", ["a b c d"]) == pytest.approx(0.5, abs=1e-6)


def test_rouge_gives_up_at_the_same_length_for_every_caller():
    def nested(depth, words):
        return nested(depth - 1, words) if depth else score("rouge", words, ["w0"])

    words = [f"w{number}" for number in range(2000)]
    walkable, too_long = " ".join(words[:940]), " ".join(words)
    assert nested(0, walkable) == nested(300, walkable) > 0.0
    assert nested(0, too_long) == 0.0


def test_rouge_zh_compares_words():
    assert score("rouge_zh", "我在北京大学", ["我在北京大学"]) == pytest.approx(1.0, abs=1e-6)
    assert score("rouge_zh", "", ["我在北京大学"]) == 0.0


def test_classification_shares_the_point_among_matches():
    assert score("classification", "Date", ["Date"], LABELS) == 1.0
    assert score("classification", "Date or Food", ["Date"], LABELS) == 1 / 2
    assert score("classification", "Food", ["Date"], LABELS) == 0.0
    assert score("classification", "date", ["Date"], LABELS) == 0.0
    assert score("classification", "", ["Date"], LABELS) == 0.0


def test_classification_takes_the_best_of_several_answers():
    assert score("classification", "Date or Food", ["Person", "Date"], LABELS) == 1 / 2


def test_classification_list_shrinks_while_walked_over():
    # Matches: "Other entity", "Other", "entity". Removing "Other" moves "entity" under the step,
    # so it stays: 1/2, where a copy of the list would give 1.
    assert score("classification", "Other entity", ["Other entity"], LABELS) == 1 / 2


def test_classification_needs_labels():
    with pytest.raises(ValueError, match="all_classes is empty"):
        score("classification", "Date", ["Date"])


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [("8", 1.0), ("8 of 10", 1 / 2), ("18", 0.0), ("none", 0.0), ("", 0.0), ("8 8 3", 2 / 3)],
)
def test_count_is_the_share_of_numbers_that_are_right(prediction, expected):
    assert score("count", prediction, ["8"]) == pytest.approx(expected)


def test_retrieval_compares_paragraph_numbers():
    assert score("retrieval", "Paragraph 12", ["Paragraph 12"]) == 1.0
    assert score("retrieval", "12 or 3", ["Paragraph 12"]) == 1 / 2
    assert score("retrieval", "Paragraph 1", ["Paragraph 12"]) == 0.0
    assert score("retrieval_zh", "段落7", ["段落7"]) == 1.0
    with pytest.raises(ValueError, match="names no paragraph"):
        score("retrieval", "Paragraph 1", ["the first"])


@pytest.mark.parametrize("metric", ["code_sim", "code_sim_indel"])
@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("\n\nx = 1\ny = 2", "x = 1", 1.0),  # leading line ends go, the first line counts
        ("# note\n// c\n```\nx = 1", "x = 1", 1.0),  # lines with comment marks are passed over
        ("x = 2  # note\nx = 1", "x = 1", 1.0),  # wherever the mark stands
        ("# note", "x = 1", 0.0),
        ("x = 1", "", 0.0),
        ("# note", "", 1.0),  # no line is left and none was wanted
        ("  \nx = 1", "x = 1", 0.57),  # a line of blanks is a line: 2 * 2 / 7
        ("abcd", "abxd", 0.75),
    ],
)
def test_code_similarity(metric, prediction, answer, expected):
    assert score(metric, prediction, [answer]) == expected


def test_code_similarity_forms_differ():
    # difflib takes the longest block first ("bcd", 3 of 4 + 4), InDel the best subsequence.
    assert score("code_sim", "abxcd", ["cdabx"]) == 0.6
    assert score("code_sim_indel", "xaxbxcxd", ["abcdx"]) == 0.62
    assert score("code_sim", "xaxbxcxd", ["abcdx"]) < 0.62


def test_values_in_running_text():
    assert score("match_all", "it is RED and blue", ["red", "green"]) == 1 / 2
    assert score("match_part", "it is RED", ["red", "green"]) == 1.0
    assert score("match_part", "", ["red"]) == 0.0
    assert score("exact", " 42\n", ["41", "42"]) == 1.0
    assert score("exact", "42", ["42 "]) == 1.0
    assert score("exact", "42 43", ["42"]) == 0.0


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_every_metric_is_within_zero_and_one_and_full_for_the_answer(metric):
    answers = {"retrieval": "Paragraph 3", "retrieval_zh": "段落3", "count": "3"}
    answer = answers.get(metric, "Food" if metric != "multiple_choice" else "C")
    prediction = answer if metric != "multiple_choice" else "The correct answer is (C)."
    assert score(metric, prediction, [answer], LABELS) == pytest.approx(1.0, abs=1e-6)
    assert score(metric, "", [answer], LABELS) == 0.0


def test_unknown_metric_offers_near_names():
    with pytest.raises(SparseBalanceError, match=r"^here: metric = 'qa_f2'.*Did you mean 'qa_f1'"):
        find_metric("qa_f2", place="here")
