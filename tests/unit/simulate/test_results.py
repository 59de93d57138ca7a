"""What docs/explanation/choosing-a-balancer.md shows is what the committed csv files hold."""

import csv
from pathlib import Path

import pytest


@pytest.fixture
def results(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(repository / "docs" / "results")
    return repository / "docs" / "results"


def test_tables_of_the_page_are_those_of_the_csv_files(results: Path) -> None:
    import tables

    page = tables.PAGE.read_text(encoding="utf-8")
    assert all(f"<!-- generated: {name} -->" in page for name in tables.BLOCKS)
    assert tables.filled(page) == page, "run: python docs/results/tables.py"


def test_tables_of_what_is_in_reach_are_those_of_its_csv_file(results: Path) -> None:
    import reach_page

    page = reach_page.PAGE.read_text(encoding="utf-8")
    assert page.count("<!-- generated: ") == 3
    assert reach_page.filled(page) == page, "run: python docs/results/reach_page.py"


def test_the_least_imbalance_is_that_of_the_longest_cut_and_the_others_raised(
    results: Path,
) -> None:
    import numpy as np
    import reach
    from balancers import ANALYTIC, CONFIG, Barrier, Setting, load_latency

    latency, block_size, name = load_latency(ANALYTIC, block_size=256)  # floor 150, constant 0
    setting = Setting(np.ones(4), latency, name, block_size, 4, 4, Barrier.MICRO, CONFIG)
    least, most = np.array([600.0, 90, 90, 90]), np.array([900.0, 400, 400, 400])
    assert reach.least_imbalance(setting, least, most) == pytest.approx(600 / ((3 * 600 + 150) / 4))
    alone = np.array([600.0, 0, 0, 0])
    assert reach.least_imbalance(setting, alone, alone) == pytest.approx(600 / (1050 / 4))
    even = np.full(4, 600.0)
    assert reach.least_imbalance(setting, even, even) == 1.0


def test_sab_is_near_the_best_in_every_committed_situation(results: Path) -> None:
    import tables

    situations = tables.by_situation("balancers.csv", "balancer").values()
    assert len(situations) == 52
    for rows in situations:
        assert float(rows["sab"]["step_ms"]) <= 1.01 * min(
            float(r["step_ms"]) for r in rows.values()
        )
        assert all(
            float(row["speedup_over_random"]) >= 1
            for name, row in rows.items()
            if name != "tokens_squared"  # wrong by a power
        )


def test_scripts_still_write_these_columns(results: Path) -> None:
    import balancers
    import numpy as np

    lengths = np.random.default_rng(0).integers(500, 60_000, 40)
    latency, block_size, name = balancers.load_latency("analytic", block_size=256)
    setting = balancers.Setting(
        lengths, latency, name, block_size, 2, 16, balancers.Barrier.MICRO, balancers.CONFIG
    )
    rows = balancers.compare("made", setting)
    with (results / "balancers.csv").open(newline="") as file:
        assert list(rows[0]) == next(csv.reader(file))
    assert [row["balancer"] for row in rows] == list(balancers.BALANCERS)


def test_the_exact_search_finds_the_optimum(results: Path) -> None:
    import exact
    import numpy as np

    times = np.array([8.0, 7.0, 6.0, 5.0, 4.0])  # greedy gets 17
    assert exact.optimum(times, 2, 17.0) == pytest.approx(15.0)
    assert exact.optimum(np.full(16, 3.0), 4, 12.0) == pytest.approx(12.0)
