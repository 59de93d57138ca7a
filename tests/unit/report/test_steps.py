"""What a step's row and the ledger tell."""

import json

import numpy as np
import polars as pl
import pytest

from sbcore.report.steps import is_fixed, read_steps


def test_what_was_not_measured_and_ranks_that_were_not_there_are_no_numbers(run_dir):
    path = run_dir / "variants" / "baseline" / "train" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()[:3]]
    for name, value in rows[0].items():
        if isinstance(value, list):
            rows[0][name] = value[:1]  # a training that goes on with more ranks
    rows[1] |= {"loss": None, "coverage_delta": None}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = read_steps(path)
    assert np.isnan(steps.data_ms).tolist() == [[False, True], [False, False], [False, False]]
    assert steps.data_ms[1:].tolist() == [[3.0, 1.0]] * 2
    assert np.isnan(steps.loss).tolist() == [False, True, False]
    assert np.isnan(steps.coverage_delta[1])


@pytest.mark.parametrize(
    ("targets", "fixed"),
    [([4, 4, 7], True), ([4, 4, 3], False), ([3, 5, 7], False)],
    ids=["by length alone", "falls with length", "two for one length"],
)
def test_budgets_are_fixed_if_each_length_has_one_that_grows(targets, fixed):
    ledger = pl.DataFrame({"num_tokens": [100, 100, 200], "top_k_target": targets})
    assert is_fixed(ledger) is fixed
