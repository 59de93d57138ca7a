"""Doubts: each from its limit on and not before, in whole sentences, the gravest first."""

import json

import polars as pl
import pytest
from fabricated_run import FACTORS, found_doubts, write_manifest

UNEVEN = (
    "Measured over predicted step time is {} for {} and {} for {}: unless the latency table misses "
    "what tells them apart, the machine was not equally fast for all variants, and speedups hold "
    "that too."
)
SLOW = (
    "Steps take longer than predicted ({}): balancing and tuning aimed at something else than this "
    "machine's time."
)
HOST = (
    "Most micro-batches should take hardly longer than an empty one, 2 ms ({}): what launching "
    "costs the host hides what balancing and tuning change. Longer ones help: topology.max_tokens, "
    "sampling.global_batch."
)


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_steps(run_dir, variant, change_row):
    path = run_dir / "variants" / variant / "train" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(json.dumps(row | change_row(row["step"])) for row in rows))


def keep_steps(run_dir, variant, num_steps):
    path = run_dir / "variants" / variant / "train" / "metrics.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:num_steps]))


def predict_200_ms(run_dir, step_ms):
    """For every step of every variant; it takes as long as given, else as predicted."""
    for variant in FACTORS:
        times = {"step_ms": step_ms.get(variant, 200.0), "predicted_ms": 200.0}
        change_steps(run_dir, variant, lambda _, times=times: times)


@pytest.mark.parametrize(
    ("measured", "said"),
    [(19, ["Speedups rest on 19 steps; medians of so few are uncertain."]), (20, [])],
)
def test_twenty_steps_are_enough(run_dir, measured, said):
    keep_steps(run_dir, "sab", 3 + measured)  # three are warm-up
    assert found_doubts(run_dir) == said


@pytest.mark.parametrize(
    ("mape", "said"),
    [
        (0.2, []),
        (0.206, ["The latency model errs by 21 % on points that it was not fitted to."]),
    ],
)
def test_the_latency_model_may_err_by_a_fifth_whatever_its_regret(run_dir, mape, said):
    error = {"mape": mape, "rank_correlation": 0.9, "regret": 0.9}
    change(run_dir / "profile" / "latency.json", error=error)
    assert found_doubts(run_dir) == said


def test_steps_may_take_half_as_long_again_as_predicted(run_dir):
    predict_200_ms(run_dir, {"sab": 300.0})
    assert found_doubts(run_dir) == []


def test_a_machine_that_was_uneven_is_graver_than_one_that_was_slow(run_dir):
    predict_200_ms(run_dir, {"sab": 301.0})
    uneven = UNEVEN.format("1.0", "baseline", "1.5", "sab")
    assert found_doubts(run_dir) == [uneven, SLOW.format("sab 1.5 times")]


def test_what_is_uneven_need_not_be_slow(run_dir):
    predict_200_ms(run_dir, {"sab": 160.0, "dense": 260.0})
    assert found_doubts(run_dir) == [UNEVEN.format("0.8", "sab", "1.3", "dense")]


def test_neither_a_slow_step_nor_warm_up_makes_a_slow_machine(run_dir):
    for variant in FACTORS:
        change_steps(
            run_dir,
            variant,
            lambda step: {
                "step_ms": 1e6 if step == 30 else (600.0 if step < 20 else 200.0),
                "predicted_ms": 200.0,
                "measured": step >= 20,
            },
        )
    assert found_doubts(run_dir) == []


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ({"predicted_ms": 2.49}, [HOST.format("sab 100 %")]),
        ({"predicted_ms": 2.5}, []),  # a quarter longer than an empty one
        ({"compute_ms": 1.0}, []),
        ({"predicted_k0_ms": 1.0}, []),
    ],
)
def test_predicted_time_tells_whether_launching_rules(run_dir, times, said):
    path = run_dir / "variants" / "sab" / "train" / "micro_batches.parquet"
    pl.read_parquet(path).with_columns(**{n: pl.lit(ms) for n, ms in times.items()}).write_parquet(
        path
    )
    assert found_doubts(run_dir) == said


def test_without_a_latency_table_nothing_is_said_of_it(run_dir):
    for path in (run_dir / "profile").glob("latency.*"):
        path.unlink()
    assert found_doubts(run_dir) == []


def test_of_what_has_not_run_only_that_is_said(run_dir):
    for name in FACTORS:
        (run_dir / "variants" / name / "train" / "summary.json").unlink()
        (run_dir / "variants" / name / "plan" / "summary.json").unlink()
    assert found_doubts(run_dir) == [
        f"{name} is unfinished: no results of plan, train." for name in FACTORS
    ]


def test_the_gravest_doubt_comes_first(run_dir):
    sab = run_dir / "variants" / "sab"
    (run_dir / "variants" / "dense" / "plan" / "summary.json").unlink()
    write_manifest(sab / "train" / "manifest.json", "train", dirty=True, inputs={"index": "2" * 64})
    change(sab / "eval" / "result.json", partial=True, num_available={}, chance={"needle": 99.0})
    change(sab / "train" / "summary.json", loss_final=9.0)
    predict_200_ms(run_dir, dict.fromkeys(FACTORS, 400.0))
    found = found_doubts(run_dir)
    assert [sentence[:19] for sentence in found] == [
        "dense is unfinished",
        "The code had uncomm",
        "Stages read differe",
        "sab was evaluated i",  # and not of its examples too
        "Steps take longer t",
        "The loss of sab did",
        "sab scores no bette",
    ]


@pytest.mark.parametrize("name", ["index", "latency", "tasks"])
def test_inputs_that_variants_share_must_be_the_same(run_dir, name):
    for variant, digest in {"baseline": "1", "sab": "2"}.items():
        manifest = run_dir / "variants" / variant / "eval" / "manifest.json"
        write_manifest(manifest, "eval", inputs={name: digest * 64})
    said = f"Stages read different versions of {name}; rerun those with older files."
    assert found_doubts(run_dir) == [said]


def test_models_are_each_variants_own(run_dir):
    for variant, digest in {"baseline": "1", "sab": "2"}.items():
        manifest = run_dir / "variants" / variant / "eval" / "manifest.json"
        write_manifest(manifest, "eval", inputs={"model": digest * 64})
    assert found_doubts(run_dir) == []


def test_only_trainings_must_be_on_equal_devices(run_dir):
    write_manifest(run_dir / "variants" / "sab" / "plan" / "manifest.json", "plan", device="H100")
    assert found_doubts(run_dir) == []


@pytest.mark.parametrize(("dirty", "num_said"), [(True, 1), (False, 0), (None, 0)])
def test_edits_are_said_where_they_are_known(run_dir, dirty, num_said):
    write_manifest(run_dir / "data" / "manifest.json", "prepare", dirty=dirty)
    num_stages = 3 * len(FACTORS) + 3
    said = f"The code had uncommitted edits in 1 of {num_stages} stages."
    assert found_doubts(run_dir) == [said] * num_said


def test_without_manifests_no_commit_is_known(run_dir):
    for path in run_dir.rglob("*manifest.json"):
        path.unlink()
    assert found_doubts(run_dir) == ["The commit of the code is unknown for some stages."]


NOT_FALLEN = ["The loss of sab did not fall."]


@pytest.mark.parametrize(
    ("early", "late", "final", "said"),
    [
        (10.0, 1.0, 5.0, []),  # the first tenth is what it fell from
        (5.0, 1.0, 5.0, NOT_FALLEN),
        (5.0, 9.0, 6.0, NOT_FALLEN),
    ],
)
def test_a_loss_falls_from_the_mean_of_its_first_tenth(run_dir, early, late, final, said):
    change_steps(run_dir, "sab", lambda step: {"loss": early if step < 4 else late})
    change(run_dir / "variants" / "sab" / "train" / "summary.json", loss_final=final)
    assert found_doubts(run_dir) == said


def test_of_less_than_ten_steps_the_first_is_what_the_loss_fell_from(run_dir):
    keep_steps(run_dir, "sab", 9)
    change(run_dir / "variants" / "sab" / "train" / "summary.json", loss_final=9.0)
    assert found_doubts(run_dir)[1:] == NOT_FALLEN


@pytest.mark.parametrize("num_skipped", [1, 3, 4, 7])  # the first tenth is 4
def test_skipped_steps_are_counted_and_no_part_of_the_loss(run_dir, num_skipped):
    change_steps(run_dir, "sab", lambda step: {"loss": None if step < num_skipped else 6.0})
    change(run_dir / "variants" / "sab" / "train" / "summary.json", loss_final=6.0)
    skipped, *others = found_doubts(run_dir)
    steps, were = ("1 step", "was") if num_skipped == 1 else (f"{num_skipped} steps", "were")
    assert skipped == f"{steps} of sab had no finite loss and {were} skipped."
    assert others == NOT_FALLEN


@pytest.mark.parametrize(
    ("chance", "num_said"),
    [
        ({"needle": 70.0}, 1),  # its score
        ({"needle": 69.9}, 0),
        ({"needle": 99.0, "recall": 12.5}, 0),  # better in one
        ({}, 0),
    ],
)
def test_better_than_chance_in_one_task_is_better(run_dir, chance, num_said):
    change(run_dir / "variants" / "sab" / "eval" / "result.json", chance=chance)
    said = "sab scores no better than chance in all tasks."
    assert found_doubts(run_dir) == [said] * num_said


def test_a_score_of_some_examples_is_told_from_one_of_some_tasks(run_dir):
    result = run_dir / "variants" / "sab" / "eval" / "result.json"
    available = json.loads(result.read_text())["num_available"] | {"needle": 25}
    change(result, num_available=available)
    assert found_doubts(run_dir) == ["sab was evaluated on some of the tasks' examples only."]
    change(result, partial=True)
    assert found_doubts(run_dir) == [
        "sab was evaluated in part: its mean score covers fewer tasks."
    ]
