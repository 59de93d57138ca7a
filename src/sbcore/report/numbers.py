"""Numbers as text."""

ABSENT = "–"  # noqa: RUF001 - an en dash, as tables show a missing number


def number(value: float | None, digits: int) -> str:
    """Returns the number with thousands apart and a true minus sign, a dash for None."""
    if value is None:
        return ABSENT
    return f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float | None, digits: int) -> str:
    """Returns the number with its sign; what rounds to zero has none."""
    text = number(value, digits)
    if value is None or float(f"{value:.{digits}f}") == 0:
        return text.lstrip("\N{MINUS SIGN}")
    return text if value < 0 else f"+{text}"


def milliseconds(value: float | None) -> str:
    """Returns three significant digits: 7.41, 74.1, 741, 7,410."""
    return number(value, 0 if value is None or value >= 100 else 1 if value >= 10 else 2)
