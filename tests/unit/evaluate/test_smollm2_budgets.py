"""Budgets of SmolLM2's evidence decided again: their means, and the curves they rest on."""

import importlib
import sys

import numpy as np
import pytest

SCRIPTS = ("quality_training", "quality_runs", "quality_summary", "smollm2_recipe")


@pytest.fixture
def budgets(repository, monkeypatch):
    """The script beside the results that it writes."""
    monkeypatch.syspath_prepend(repository / "docs" / "results")
    for name in (*SCRIPTS, "smollm2_budgets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("smollm2_budgets")


def test_means(budgets):
    rows = [
        ("made", 2048, np.array([8, 10]), 1.0),
        ("made", 2048, np.array([6, 8]), -0.5),
        ("made", 512, np.array([8, 8]), np.nan),
        ("qmsum", 8192, np.array([4, 4]), -2.0),
    ]
    short, middle, long = budgets._means("sab_dst", rows)
    assert (short["tokens"], short["coverage_delta"], short["num_samples"]) == ("1-1024", "", 1)
    assert (middle["top_k"], middle["coverage_delta"], middle["num_samples"]) == (8.0, 0.25, 2)
    assert (long["origin"], long["tokens"], long["top_k"]) == ("qmsum", "7001-9000", 4.0)


def test_drawn_curves_are_those_of_the_kind(budgets):
    found = {(4, "made"): np.full((3, 2, 5), 0.5), (6, "qmsum"): np.full((1, 2, 5), 0.9)}
    kinds = [(4, "made"), (2, "made"), (6, "qmsum")]
    like, ladder = np.full((2, 3), 8), np.array([1, 2, 4, 8, 16])
    curves = budgets._curves(kinds, found, np.random.default_rng(0), like=like, of=ladder)
    assert curves.shape == (2, 3, 5)
    assert (curves[:, 0] == 0.5).all()
    assert np.isnan(curves[:, 1]).all()
    assert (curves[:, 2] == 0.9).all()
