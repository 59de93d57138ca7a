"""The demo's own words, each a single token: facts, questions, values.

A fact is one token "key=value", so one attention step finds it. Facts of two tokens need an
induction head, which a two-layer model does not learn within a minute (docs/log.md).
"""

NUM_KEYS, NUM_VALUES = 16, 8

VALUES = tuple(f"<v{value}>" for value in range(NUM_VALUES))
FACTS = tuple(
    tuple(f"<k{key:02}=v{value}>" for value in range(NUM_VALUES)) for key in range(NUM_KEYS)
)
QUESTIONS = tuple(f"<k{key:02}?>" for key in range(NUM_KEYS))
"""Ask for all values of a key, smallest first."""
LABEL_QUESTIONS = tuple(f"<k{key:02}~?>" for key in range(NUM_KEYS))
"""Ask for the value that a key has most often: the label of a class whose examples are noisy."""

ALL_WORDS = (*QUESTIONS, *LABEL_QUESTIONS, *VALUES, *(fact for row in FACTS for fact in row))
