"""Reading a run: what is missing is None, what is wrong is an error with file and key."""

import json
import shutil

import polars as pl
import pytest
from fabricated_run import FACTORS, NUM_RANKS, NUM_STEPS, report_stage, times

from sbcore.errors import SparseBalanceError
from sbcore.report.collect import collect


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_everything_is_read(run_dir):
    record = collect(report_stage(), run_dir)
    assert [variant.variant for variant in record.variants] == list(FACTORS)
    training = record.baseline.training
    assert training is not None
    assert training.steps.compute_ms.shape == (NUM_STEPS, NUM_RANKS)
    assert training.spans["step"].n_unique() == NUM_STEPS
    assert record.lengths is not None
    assert record.latency is not None
    assert record.latency.budgets == [1, 2, 4, 8, 16, 32]
    assert record.latency.at(4)["top_k"].to_list() == [2, 4, 4, 4, 4, 4, 4]
    assert record.latency.at(None)["top_k"].to_list() == [2, 4, 8, 16, 32, 64, 128]
    shortest = record.latency.at(None)["median_ms"][0]  # measured alone and in a pack of 16
    assert shortest == pytest.approx(times(64, 2)[0] / 16)
    assert set(record.manifests) >= {"data/manifest.json", "profile/latency.manifest.json"}


def test_an_unfinished_training_is_none_not_an_error(run_dir):
    (run_dir / "variants" / "sab" / "train" / "summary.json").unlink()
    shutil.rmtree(run_dir / "variants" / "sab" / "eval")
    shutil.rmtree(run_dir / "variants" / "dense")
    missing = {v.variant: v.missing for v in collect(report_stage(), run_dir).variants}
    assert missing == {
        "baseline": (),
        "sab": ("train", "evaluate"),
        "sab_dst": (),
        "dense": ("plan", "train", "evaluate"),
    }


def test_a_run_without_profiles_is_read(run_dir):
    shutil.rmtree(run_dir / "profile")
    record = collect(report_stage(), run_dir)
    assert (record.lengths, record.latency) == (None, None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "fast", None])
def test_a_number_that_is_none_is_named_with_file_and_key(run_dir, value):
    path = run_dir / "variants" / "sab" / "train" / "summary.json"
    edit_json(path, tokens_per_s=value)
    with pytest.raises(SparseBalanceError) as error:
        collect(report_stage(), run_dir)
    assert str(error.value).startswith(f"{path}: tokens_per_s = ")
    assert "\n" not in str(error.value)


def test_a_non_finite_score_is_named(run_dir):
    path = run_dir / "variants" / "sab" / "eval" / "result.json"
    edit_json(path, scores={"recall": float("nan")})
    with pytest.raises(SparseBalanceError, match=r"result\.json: scores\.recall = nan: "):
        collect(report_stage(), run_dir)


def test_a_step_that_is_not_finite_is_named_with_its_line(run_dir):
    path = run_dir / "variants" / "sab" / "train" / "metrics.jsonl"
    lines = path.read_text().splitlines()
    lines[6] = json.dumps(json.loads(lines[6]) | {"loss": float("inf")})
    path.write_text("\n".join(lines))
    with pytest.raises(SparseBalanceError, match=r"metrics\.jsonl:7: loss = inf: "):
        collect(report_stage(), run_dir)


def test_a_missing_key_is_named(run_dir):
    path = run_dir / "variants" / "sab" / "train" / "metrics.jsonl"
    path.write_text('{"step": 0}\n')
    with pytest.raises(SparseBalanceError, match=r"metrics\.jsonl:1: loss = missing: "):
        collect(report_stage(), run_dir)


@pytest.mark.parametrize(
    ("text", "said"), [("", ": no steps."), ("{broken\n", ":1: not json: "), (None, ": missing.")]
)
def test_steps_that_cannot_be_read_name_what_makes_them(run_dir, text, said):
    path = run_dir / "variants" / "sab" / "train" / "metrics.jsonl"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(SparseBalanceError) as error:
        collect(report_stage(), run_dir)
    assert str(error.value).startswith(f"{path}{said}")
    # No rule has this file as an output, and any run has its own configuration.
    assert str(error.value).endswith(f" --configfile CONFIG --forcerun {path.parent}/summary.json")


def test_a_span_that_is_not_finite_is_named_with_its_row(run_dir):
    path = run_dir / "variants" / "sab" / "train" / "micro_batches.parquet"
    table = pl.read_parquet(path).with_row_index()
    compute = pl.when(pl.col("index") == 4).then(float("nan")).otherwise(pl.col("compute_ms"))
    table.with_columns(compute.alias("compute_ms")).write_parquet(path)
    with pytest.raises(SparseBalanceError, match=r"parquet: compute_ms = nan: .* in row 4"):
        collect(report_stage(), run_dir)


def test_unmeasured_coverage_in_the_ledger_is_allowed(run_dir):
    path = run_dir / "variants" / "sab" / "train" / "ledger.parquet"
    table = pl.read_parquet(path)
    assert table["coverage"].is_nan().any()
    table.drop("top_k").write_parquet(path)
    with pytest.raises(SparseBalanceError, match=r"ledger\.parquet: .*top_k"):
        collect(report_stage(), run_dir)


def test_a_table_that_is_not_parquet_is_an_error(run_dir):
    path = run_dir / "variants" / "sab" / "train" / "ledger.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(SparseBalanceError, match=r"ledger\.parquet: not readable"):
        collect(report_stage(), run_dir)


def test_without_tasks_no_evaluation_is_missed(run_dir):
    shutil.rmtree(run_dir / "variants/sab/eval")
    asked = {v.variant: v.missing for v in collect(report_stage(), run_dir).variants}
    assert asked["sab"] == ("evaluate",)
    stage = report_stage().model_copy(update={"evaluated": False})
    assert {v.missing for v in collect(stage, run_dir).variants} == {()}
