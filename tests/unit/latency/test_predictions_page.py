"""docs/results/predictions.md shows what the committed csv files hold."""

from pathlib import Path

import pytest


def test_tables_of_predictions_are_those_of_the_csv_files(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(repository / "docs" / "results")
    import predictions_page

    page = predictions_page.PAGE.read_text(encoding="utf-8")
    assert all(f"<!-- generated: {name} -->" in page for name in predictions_page.BLOCKS)
    assert predictions_page.filled(page) == page, "run: python docs/results/predictions_page.py"
