"""Differences to the baseline: paired, by family, and said to be none where they are none."""

import json
from pathlib import Path

import pytest
from fabricated_run import report_stage

from sbcore.report.collect import collect
from sbcore.report.evidence import EVERYTHING, evidence, in_words

CONFIG = report_stage()


def rewrite(run_dir: Path, variant: str, **values: object) -> None:
    path = run_dir / "variants" / variant / "eval" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_rows_are_families_and_all_tasks(run_dir: Path) -> None:
    found = evidence(collect(CONFIG, run_dir))
    assert found is not None
    assert found.baseline == CONFIG.baseline
    assert found.variants == [name for name in CONFIG.variants if name != CONFIG.baseline]
    assert [row.family for row in found.rows] == ["retrieval", "few_shot", EVERYTHING]
    assert found.rows[0].differences[0] is not None
    assert found.rows[0].differences[0].num_examples == 3 * 24


def test_a_clear_loss_is_told_apart_and_noise_is_not(run_dir: Path) -> None:
    other = next(name for name in CONFIG.variants if name != CONFIG.baseline)
    categories = {"recall": "retrieval", "lcc": "code"}
    base = {"recall": [100.0, 0.0] * 20, "lcc": [50.0] * 40}
    rewrite(run_dir, CONFIG.baseline, example_scores=base, categories=categories)
    ours = {"recall": [0.0, 100.0] * 20, "lcc": [40.0, 45.0] * 20}
    rewrite(run_dir, other, example_scores=ours, categories=categories)
    found = evidence(collect(CONFIG, run_dir))
    assert found is not None
    recall, code = (row.differences[0] for row in found.rows[:2])
    assert recall is not None
    assert not recall.is_distinguishable
    assert code is not None
    assert code.high < 0
    assert code.mean == pytest.approx(-7.5)
    assert in_words(recall).endswith(", not distinguishable")
    assert in_words(code).startswith("\N{MINUS SIGN}7.5 (")


def test_other_examples_are_not_compared(run_dir: Path) -> None:
    for name in CONFIG.variants:
        if name != CONFIG.baseline:
            rewrite(run_dir, name, example_scores={"recall": [1.0]})
    assert evidence(collect(CONFIG, run_dir)) is None


def test_nothing_to_compare_with(run_dir: Path) -> None:
    (run_dir / "variants" / CONFIG.baseline / "eval" / "result.json").unlink()
    assert evidence(collect(CONFIG, run_dir)) is None
