"""The table that answers the question: tuned variants against `baseline` on every family of tasks.

Families are those of both experiments, and each has two differences, so that chance alone would put
some intervals to one side of 0: p-values are also given as Holm corrects them for all of these.
"""

from collections.abc import Mapping, Sequence

TUNED = ("sab_dst", "sab_waterfill")
EVERYTHING = "all"
SUMS = ("longbench", "made", "retrieval", EVERYTHING)
"""Means over several families, which are not families themselves."""

Row = dict[str, str]
Key = tuple[str, str, str]
"""Model, family, variant."""


def summary_lines(smollm2: Sequence[Row], small_model: Sequence[Row]) -> list[list[str]]:
    """Returns head and body: a line per family; differences, intervals, Holm's p where one is."""
    families = {
        ("SmolLM2", row["family"], row["variant"]): row
        for row in smollm2
        if row["task"] == EVERYTHING and row["family"] not in SUMS
    }
    families |= {
        ("30M", row["task"], row["variant"]): row
        for row in small_model
        if row["length"] == EVERYTHING and row["task"] not in SUMS
    }
    tuned = {key: float(row["p_value"]) for key, row in families.items() if key[2] in TUNED}
    corrected = holm(tuned)
    body = [
        [model, family, row["num_examples"], f"{float(row['score']):.1f}"]
        + [_cell(families[model, family, name], corrected[model, family, name]) for name in TUNED]
        for (model, family, variant), row in families.items()
        if variant == "baseline"
    ]
    return [["model", "family", "examples", "baseline", *TUNED], *body]


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Returns p-values corrected for their number: the i-th least of n times n - i + 1, rising."""
    corrected: dict[Key, float] = {}
    largest = 0.0
    for place, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - place)))
        corrected[key] = largest
    return corrected


def _cell(row: Row, corrected: float) -> str:
    score = float(row["score"])
    difference, low, high = (float(row[key]) for key in ("difference", "low", "high"))
    text = f"{score:.1f}: {difference:+.1f} ({low:+.1f} to {high:+.1f})"
    if row["distinguishable"] != "True":
        return text
    return f"**{text}**, p {float(row['p_value']):.4f}, Holm {corrected:.3f}"
