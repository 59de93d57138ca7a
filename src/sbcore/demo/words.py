"""The demo's own words, each a single token: facts, questions, values.

A fact is one token "key=value", and so is a question, so that one attention step answers it.
What takes two steps, a two-layer model learns late or not at all (docs/log.md): facts of two
tokens, or a second value whose key stands two tokens back.
"""

NUM_KEYS, NUM_VALUES = 16, 8

VALUES = tuple(f"<v{value}>" for value in range(NUM_VALUES))
FACTS = tuple(
    tuple(f"<k{key:02}=v{value}>" for value in range(NUM_VALUES)) for key in range(NUM_KEYS)
)
QUESTIONS = tuple(f"<k{key:02}?>" for key in range(NUM_KEYS))
"""Ask for the values of a key, smallest first."""
FURTHER = tuple(f"<k{key:02}+?>" for key in range(NUM_KEYS))
"""Stand in an answer before its second value."""
LABEL_QUESTIONS = tuple(f"<k{key:02}~?>" for key in range(NUM_KEYS))
"""Ask for the value that a key has most often: the label of a class whose examples are noisy."""

ALL_WORDS = (
    *QUESTIONS,
    *FURTHER,
    *LABEL_QUESTIONS,
    *VALUES,
    *(fact for row in FACTS for fact in row),
)
