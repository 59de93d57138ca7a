"""docs/results/ablation.py: the table and the figure of committed comparisons."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest
from fake_trainer import make_row

from sbcore.ablation.results import JOURNAL, STEPS, TABLE, Results, read_rows
from sbcore.ablation.steps import measured_step
from sbcore.ablation.table import COLUMNS, Place
from sbcore.errors import SparseBalanceError

PLACE = Place("2 x GPU", "Qwen2.5-0.5B", "mooncake", "micro", 16, "run-a")


def some_steps(variant, times):
    rows = [make_row(number, step_ms=time) for number, time in enumerate(times)]
    return [measured_step(variant, row, measured=True) for row in rows]


ROUNDS = [
    *some_steps("baseline", [100.0, 200.0, 300.0]),
    *some_steps("sab_dst", [50.0, 100.0, 200.0]),
    *some_steps("sab_waterfill", [40.0, 100.0, 120.0]),
]


@pytest.fixture
def script(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "docs" / "results")
    import ablation

    return ablation


@pytest.fixture
def measured(tmp_path):
    """Two starts of one setting and one of another, as committed."""
    results = Results(tmp_path)
    results.add(PLACE, ROUNDS)
    results.add(dataclasses.replace(PLACE, run_id="run-b"), ROUNDS)
    results.add(dataclasses.replace(PLACE, barrier="step"), ROUNDS)
    (tmp_path / TABLE).rename(tmp_path / "ours.csv")
    (tmp_path / STEPS).rename(tmp_path / "ours-steps.csv.gz")
    return tmp_path / "ours.csv"


def lines_of(text, variant):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(f"| `{variant}`")
    ]


def test_starts_of_one_setting_count_together(script, measured):
    text = script.page(script.read_comparison(measured), picture="ours.png")
    first, second = lines_of(text, "sab_dst")
    assert (first[1], second[1]) == ("6", "3")
    at = script._HEAD.index("over baseline")
    assert first[at].startswith("2.00 (")
    assert first[script._HEAD.index("over dense")] == "-"
    assert text.count("## ") == 2


def test_the_papers_figures_stand_beside_and_only_where_it_has_some(script, measured):
    text = script.page(script.read_comparison(measured), picture="ours.png")
    at = script._HEAD.index("paper, over baseline")
    assert lines_of(text, "sab_dst")[0][at] == "1.35"
    assert lines_of(text, "sab_waterfill")[0][at] == "-"


def test_shares_of_peak_are_told_where_the_peak_is_known(script, measured):
    text = script.page(script.read_comparison(measured), picture="ours.png")
    at = script._HEAD.index("useful MFU, %")
    assert lines_of(text, "sab_dst")[0][at] == "-"
    steps = some_steps("dense", [1.0, 1.0])  # 0.2 TFLOP in a millisecond on two GPUs
    known = dataclasses.replace(PLACE, device="2 x NVIDIA H100 80GB HBM3")
    shares = list(script.shares_of_peak(known, steps))
    assert shares == [f"{100 * 200 / 2 / 989:.1f}", f"{100 * 400 / 2 / 989:.1f}"]


def test_the_page_and_the_picture_are_written(script, measured, monkeypatch):
    monkeypatch.setattr("sys.argv", ["ablation.py", str(measured)])
    script.main()
    assert "](ours.png)" in measured.with_suffix(".md").read_text()
    assert measured.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_folders_of_starts_become_one_csv_with_its_page(script, tmp_path, monkeypatch):
    """Two calls for one setting, the second in a copy of the first's folder and then killed."""
    second, other = dataclasses.replace(PLACE, run_id="run-b"), tmp_path / "other"
    Results(tmp_path / "first").add(PLACE, ROUNDS[:2])
    Results(tmp_path / "both").add(PLACE, ROUNDS)
    Results(tmp_path / "both").journal.add(second, ROUNDS)
    Results(other).add(dataclasses.replace(PLACE, run_id="run-c", barrier="step"), ROUNDS)
    (other / "manifest-run-c.json").write_text('{"commit": "abc"}')
    path = tmp_path / "docs" / "all.csv"
    folders = [str(tmp_path / name) for name in ("first", "both", "other")]
    monkeypatch.setattr("sys.argv", ["ablation.py", str(path), "--collect", *folders])
    script.main()
    rows = read_rows(path, COLUMNS)
    assert [(row["run_id"], row["variant"], row["steps"]) for row in rows[2:4]] == [
        ("run-a+run-b", "sab_waterfill", "6"),
        ("run-c", "baseline", "3"),
    ]
    assert lines_of(path.with_suffix(".md").read_text(), "sab_dst")[0][1] == "6"
    assert path.with_suffix(".png").is_file()
    manifests = json.loads(path.with_name("all-manifest.json").read_text())
    assert manifests == {"starts": {"run-c": {"commit": "abc"}}}
    assert (tmp_path / "both" / JOURNAL).is_file(), "folders stay as they are"


def test_a_folder_without_steps_is_refused(script, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["ablation.py", "all.csv", "--collect", str(tmp_path)])
    with pytest.raises(SystemExit, match="neither ablation-steps"):
        script.main()


def test_missing_columns_are_refused(script, measured, monkeypatch):
    lines = measured.read_text().replace(",waiting_pct", "", 1)
    measured.write_text(lines)
    monkeypatch.setattr("sys.argv", ["ablation.py", str(measured)])
    with pytest.raises(SystemExit, match="no column waiting_pct"):
        script.main()
    assert not measured.with_suffix(".md").exists()


@pytest.mark.parametrize("name", ["dp8", "paper"])
def test_simulated_rows_are_not_taken_for_measured_ones(script, repository, monkeypatch, name):
    path = repository / f"docs/results/ablation-{name}-predicted.csv"
    assert not set(COLUMNS) <= set(path.read_text().splitlines()[0].split(","))
    monkeypatch.setattr("sys.argv", ["ablation.py", str(path)])
    with pytest.raises(SystemExit, match="no column"):
        script.main()


def test_a_table_without_its_steps_is_refused(script, measured):
    Results(measured.parent).add(PLACE, ROUNDS)
    (measured.parent / TABLE).replace(measured)
    with pytest.raises(SparseBalanceError, match="run_id = run-b: not in both"):
        script.read_comparison(measured)


def test_what_is_predicted_holds_every_machine_and_variant(script, repository):
    import ablation_predicted

    for name, machines in ablation_predicted.FILES.items():
        rows = rows_of_csv(repository / "docs/results" / name)
        tables = {Path(table).stem for table in ablation_predicted.known_tables()}
        assert tables == {"h100-qwen2.5-0.5b", "h100-qwen2.5-3b"}
        keys = ("barrier", "num_ranks", "num_stages", "global_batch", "variant")
        found = [(row["latency"].split(",")[0], *(row[key] for key in keys)) for row in rows]
        wanted = {
            (table, m.barrier, str(m.num_ranks), str(m.num_stages), str(m.global_batch), variant)
            for table in tables
            for m in machines
            for variant in ablation_predicted.VARIANTS
        }
        assert len(found) == len(wanted)
        assert set(found) == wanted
        said = [key for key in list(rows[0])[7:-1] if key != "measured_speedup"]
        assert all("simulated_" in key for key in said)
        baselines = [row for row in rows if row["variant"] == "baseline"]
        assert {row["simulated_speedup"] for row in baselines} == {"1.0"}


@pytest.mark.parametrize(
    ("shape", "machine"), [("0.5b", (8, "micro", 16)), ("3b", (4, "step", 32))]
)
def test_what_is_predicted_is_what_the_simulator_says_today(script, repository, shape, machine):
    import ablation_predicted

    said = rows_of_csv(repository / "docs/results/ablation-dp8-predicted.csv")
    (source,) = (path for path in ablation_predicted.known_tables() if shape in path)
    chosen = [
        m
        for m in ablation_predicted.ONE_HOST
        if (m.num_ranks, m.barrier, m.global_batch) == machine
    ]
    rows = list(ablation_predicted.rows_of(source, chosen))
    assert len(rows) == 9
    for row in rows:
        today = {key: str(value) for key, value in row.items()}
        assert today in said, f"run docs/results/ablation_predicted.py: {today}"


def rows_of_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_simulated_steps_of_all_starts_of_a_setting_count(script):
    import ablation_simulated

    other = dataclasses.replace(PLACE, run_id="run-b")
    ((place, starts),) = ablation_simulated.by_setting({PLACE: ROUNDS, other: ROUNDS}).items()
    once = ablation_simulated.times_of([ROUNDS], "baseline")
    assert place.run_id == ""
    assert sorted(ablation_simulated.times_of(starts, "baseline").values()) == sorted(
        2 * list(once.values())
    )
