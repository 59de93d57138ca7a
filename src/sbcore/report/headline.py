"""The result of a run in plain words."""

from dataclasses import dataclass

from sbcore.report.collect import RunRecord
from sbcore.report.compare import Row
from sbcore.report.numbers import milliseconds, signed


@dataclass(frozen=True)
class Headline:
    """The result in a line and in a paragraph."""

    title: str
    sentence: str


def headline(record: RunRecord, rows: list[Row]) -> Headline:
    """Returns the result in plain words; nothing is called faster that is not clearly so."""
    baseline = record.baseline.variant
    if record.baseline.training is None:
        return Headline(
            "Nothing to compare yet", f"The baseline, {baseline}, has not finished training."
        )
    others = [row for row in rows if row.speedup and row.variant != baseline]
    if not others:
        return Headline("Nothing to compare yet", f"Only {baseline} has finished training.")
    best = max(others, key=_ratio)
    base = next(row for row in rows if row.variant == baseline)
    return Headline(_title(best, baseline), f"{_speed_sentence(best, base)} {_price(best, base)}")


def _ratio(row: Row) -> float:
    return row.speedup.ratio if row.speedup else 0.0


def _title(best: Row, baseline: str) -> str:
    assert best.speedup is not None, best
    if best.speedup.ratio <= 1:
        return f"No variant is faster than {baseline}"
    if best.speedup.p20 <= 1:
        return f"{best.variant} is not clearly faster than {baseline}"
    return f"{best.variant} trains {best.speedup.ratio:.2f} times as fast as {baseline}"


def _speed_sentence(best: Row, base: Row) -> str:
    assert best.speedup is not None, best
    ours = best.step_time_ms.median if best.step_time_ms else None
    theirs = base.step_time_ms.median if base.step_time_ms else None
    low, high = best.speedup.p20, best.speedup.p80
    return (
        f"A typical step takes {milliseconds(ours)} ms with {best.variant}, "
        f"{milliseconds(theirs)} ms with {base.variant}. In the middle 60 % of the "
        f"{best.speedup.num_steps} measured steps that both have, the ratio lies between "
        f"{low:.2f} and {high:.2f}."
    )


def _price(best: Row, base: Row) -> str:
    """Returns what the fastest variant cost, of what is known."""
    parts = []
    if best.score_mean is not None and base.score_mean is not None:
        parts.append(f"its mean score is {best.score_mean:.1f} against {base.score_mean:.1f}")
    if best.loss_final is not None and base.loss_final is not None:
        parts.append(f"its final loss {best.loss_final:.3f} against {base.loss_final:.3f}")
    if best.coverage_delta is not None:
        parts.append(f"its coverage changed by {signed(best.coverage_delta, 2)} points")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""
