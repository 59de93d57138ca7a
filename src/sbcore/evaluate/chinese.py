"""Chinese words by jieba, loaded when the first Chinese task is scored (its dictionary: 1 s)."""

import logging


def cut_words(text: str) -> list[str]:
    """Returns jieba's words of ``text`` in order, blanks and punctuation included."""
    import jieba

    jieba.setLogLevel(logging.WARNING)  # it reports its start-up on stderr
    return list(jieba.cut(text, cut_all=False))
