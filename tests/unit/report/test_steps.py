"""What the ledger tells of tuning."""

import polars as pl
import pytest

from sbcore.report.steps import is_fixed


@pytest.mark.parametrize(
    ("targets", "fixed"),
    [([4, 4, 7], True), ([4, 4, 3], False), ([3, 5, 7], False)],
    ids=["by length alone", "falls with length", "two for one length"],
)
def test_budgets_are_fixed_if_each_length_has_one_that_grows(targets, fixed):
    ledger = pl.DataFrame({"num_tokens": [100, 100, 200], "top_k_target": targets})
    assert is_fixed(ledger) is fixed
