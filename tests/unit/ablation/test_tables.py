import csv
import gzip

import pytest
from fake_trainer import make_row

from sbcore.ablation.journal import RAW_COLUMNS
from sbcore.ablation.ratios import paired_speedup
from sbcore.ablation.results import STEPS, TABLE, Results, read_rows, read_steps
from sbcore.ablation.show import print_setting
from sbcore.ablation.steps import measured_step
from sbcore.ablation.table import COLUMNS, Place, variant_row
from sbcore.errors import SparseBalanceError

PLACE = Place("2 x GPU", "Qwen2.5-0.5B", "mine", "micro", 16, "run-a")
ISSUE = (
    "device, shape, lengths, barrier, global_batch, variant, steps, step_ms_p20, step_ms_p50, "
    "step_ms_p80, tokens_per_s, imbalance, coverage_delta, overhead_pct, waiting_pct, "
    "predicted_ms, run_id"
)


def some_steps(variant, times, **others):
    rows = [make_row(number, step_ms=time, **others) for number, time in enumerate(times)]
    return [measured_step(variant, row, measured=row["step"] > 0) for row in rows]


STEPS_OF_BOTH = [
    *some_steps("baseline", [900.0, 100.0, 200.0, 300.0]),
    *some_steps("sab_dst", [900.0, 80.0, 100.0, 240.0], coverage_delta=-0.5),
]


def test_columns_are_those_agreed_on():
    assert ", ".join(COLUMNS) == ISSUE


def test_a_row_holds_medians_and_shares_of_time():
    row = variant_row(PLACE, "baseline", STEPS_OF_BOTH[1:4])
    assert list(row) == list(COLUMNS)
    assert (row["step_ms_p50"], row["steps"]) == (200.0, 3)
    assert row["tokens_per_s"] == 5000.0
    assert row["waiting_pct"] == 20.0
    assert row["overhead_pct"] == 1.0
    assert row["predicted_ms"] == 180.0
    assert row["coverage_delta"] == ""


def test_a_row_tells_the_middle_60_per_cent_and_averages_what_each_step_has():
    steps = []
    for number, time in enumerate((100.0, 200.0, 300.0, 400.0, 1000.0)):
        delta, predicted = (None, 0.0, 3.0, None, 3.0)[number], (1.0, 2.0, 3.0, 40.0, 50.0)[number]
        more = {"coverage_delta": delta, "predicted_ms": predicted, "imbalance": 1.0 + number}
        steps += some_steps("dst", [time], **more)
    row = variant_row(PLACE, "dst", steps)
    assert (row["step_ms_p20"], row["step_ms_p50"], row["step_ms_p80"]) == (180.0, 300.0, 520.0)
    assert (row["coverage_delta"], row["predicted_ms"], row["imbalance"]) == (2.0, 3.0, 3.0)


def test_a_speedup_is_that_of_the_same_rounds():
    def rounds(**times):
        made = (
            measured_step("v", make_row(int(n[1:]), step_ms=ms), measured=True)
            for n, ms in times.items()
        )
        return list(made)

    baseline = rounds(n1=100.0, n2=200.0, n3=300.0, n4=500.0, n9=1.0)
    found = paired_speedup(rounds(n7=5.0, n4=100.0, n1=100.0, n2=400.0, n3=300.0), baseline)
    assert found is not None  # of 0.5, 1, 1 and 5
    assert (found.median, found.num_rounds) == (1.0, 4)
    assert (found.p20, found.p80) == pytest.approx((0.8, 2.6))
    assert paired_speedup(rounds(n8=1.0), baseline) is None


def test_settings_and_starts_are_added_to_what_is_there(tmp_path):
    Results(tmp_path).add(PLACE, STEPS_OF_BOTH)
    later = Place("2 x GPU", "Qwen2.5-3B", "mine", "step", 32, "run-b")
    Results(tmp_path).add(later, STEPS_OF_BOTH)
    with (tmp_path / TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run_id"], row["variant"]) for row in rows] == [
        (run, variant) for run in ("run-a", "run-b") for variant in ("baseline", "sab_dst")
    ]
    assert rows[3]["coverage_delta"] == "-0.5"
    assert read_steps(tmp_path / STEPS) == {PLACE: STEPS_OF_BOTH, later: STEPS_OF_BOTH}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([TABLE, STEPS])


def test_equal_rows_give_equal_bytes(tmp_path):
    for folder in ("a", "b"):
        Results(tmp_path / folder).add(PLACE, STEPS_OF_BOTH)
    first, second = ((tmp_path / folder / STEPS).read_bytes() for folder in ("a", "b"))
    assert first == second
    assert first[4:8] == bytes(4), "gzip's time of writing"


def test_what_a_killed_start_left_is_taken_up_by_the_next(tmp_path):
    Results(tmp_path).add(PLACE, STEPS_OF_BOTH)
    killed = Place("2 x GPU", "Qwen2.5-3B", "mine", "step", 32, "run-b")
    journal = Results(tmp_path).journal
    journal.add(killed, STEPS_OF_BOTH[:2])
    journal.add(killed, STEPS_OF_BOTH[4:6])
    with journal.path.open("a") as file:
        file.write("2 x GPU,Qwen2.5-3B,mi")  # the kill came here
    assert read_steps(tmp_path / STEPS) == {PLACE: STEPS_OF_BOTH}
    Results(tmp_path)
    kept = [*STEPS_OF_BOTH[:2], *STEPS_OF_BOTH[4:6]]
    assert read_steps(tmp_path / STEPS) == {PLACE: STEPS_OF_BOTH, killed: kept}
    assert not journal.path.exists()


def test_a_finished_setting_leaves_no_journal(tmp_path):
    results = Results(tmp_path / "new")
    results.journal.add(PLACE, STEPS_OF_BOTH)
    results.add(PLACE, STEPS_OF_BOTH)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted([TABLE, STEPS])


def test_missing_columns_are_refused_by_name(tmp_path):
    names = [name for name in COLUMNS if name != "waiting_pct"]
    (tmp_path / TABLE).write_text(",".join(names) + "\n")
    with pytest.raises(SparseBalanceError, match="no column waiting_pct"):
        Results(tmp_path)


def test_columns_in_another_order_are_of_another_version(tmp_path):
    (tmp_path / TABLE).write_text(",".join(COLUMNS[::-1]) + "\n")
    with pytest.raises(SparseBalanceError, match="columns of another version"):
        Results(tmp_path)


def test_a_torn_file_is_refused(tmp_path):
    data = gzip.compress(",".join(RAW_COLUMNS).encode() * 50)
    (tmp_path / STEPS).write_bytes(data[: len(data) // 2])
    with pytest.raises(SparseBalanceError, match="measure again into another folder"):
        read_rows(tmp_path / STEPS, RAW_COLUMNS)


def test_the_table_shows_paired_speedups(capsys):
    print_setting(PLACE, STEPS_OF_BOTH, baseline="baseline")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Qwen2.5-0.5B, mine, barrier micro, global batch 16")
    tuned = next(line for line in lines if line.startswith("sab_dst"))
    assert "1.250" in tuned  # the median of 1.25, 2, 1.25
    assert "-0.50" in tuned


def test_a_setting_without_measured_steps_says_nothing_false(capsys):
    print_setting(PLACE, STEPS_OF_BOTH[:1], baseline="baseline")
    assert "baseline" not in capsys.readouterr().out.splitlines()[-1]
