"""docs/results/targets.md says of the committed comparison what it holds, missed targets too."""

from pathlib import Path

import pytest


@pytest.fixture
def targets(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(repository / "docs" / "results")
    import targets

    return targets


def test_the_table_is_that_of_the_csv(targets) -> None:
    page = targets.PAGE.read_text(encoding="utf-8")
    assert targets.filled(page) == page, "run: PYTHONPATH=src python docs/results/targets.py"
    assert "generated: reached" in page
    assert "`sab_dst` over `baseline`" in page


def test_a_number_is_judged_before_it_is_rounded(targets) -> None:
    more = targets.Target("more", 1.3, 2, lambda *_: 1.298, 2, True)
    assert more.cell(None, None) == "1.30, **missed**"
    assert [more.verdict(value) for value in (1.3, 1.999, 2.0)] == ["must", "must", "aim"]
    less = targets.Target("less", 8, 3, lambda *_: None, 1, False)
    assert [less.verdict(value) for value in (8.01, 8.0, 3.0)] == ["**missed**", "must", "aim"]
    assert less.cell(None, None) == "-"
    assert targets.Target("any", 0, None, less.value, 2, True).verdict(5.0) == "must"
