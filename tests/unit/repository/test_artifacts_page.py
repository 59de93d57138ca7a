"""The page of files names exactly the columns and keys that the code writes."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from sbcore.artifacts import write_manifest
from sbcore.data.layout import INDEX_COLUMNS
from sbcore.latency.quality import Quality
from sbcore.latency.table import MeasuredPoint
from sbcore.lengths.statistics import LengthProfile
from sbcore.plan.file import PLAN_SCHEMA
from sbcore.report.contracts import EvaluationResult, StepRow, TrainSummary
from sbcore.train.account import SPAN_COLUMNS
from sbcore.tune.coverage_file import COVERAGE_SCHEMA


@pytest.fixture
def documented(repository: Path):
    text = (repository / "docs" / "reference" / "artifacts.md").read_text()

    def find(heading: str) -> list[str]:
        (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
        cells = re.findall(r"^\| (`.*?) \|", section, re.M)
        return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]

    return find


def test_columns_of_tables(documented) -> None:
    assert documented("`data/index.parquet`") == list(INDEX_COLUMNS)
    assert documented("`variants/V/plan/plan.parquet`") == PLAN_SCHEMA.names
    points = [field.name for field in fields(MeasuredPoint)]
    assert documented("`profile/latency.parquet`") == points
    assert documented("`variants/V/train/micro_batches.parquet`") == list(SPAN_COLUMNS)
    assert documented("`variants/V/train/coverage.parquet`") == COVERAGE_SCHEMA.names


def test_types_of_plan_columns(repository: Path) -> None:
    text = (repository / "docs" / "reference" / "artifacts.md").read_text()
    for field in PLAN_SCHEMA:
        assert f"| `{field.name}` | {field.type} |" in text


def test_columns_of_the_ledger(documented, repository: Path) -> None:
    source = (repository / "src" / "sbcore" / "train" / "account.py").read_text()
    written = source[source.index("def _part_rows") :].split("def ", 2)[1]
    columns = re.findall(r'^ +"(\w+)":', written, re.MULTILINE)
    assert len(columns) > 5
    assert documented("`variants/V/train/ledger.parquet`") == columns


def test_keys_of_json_files(documented, tmp_path: Path) -> None:
    assert set(documented("`profile/lengths.json`")) >= {f.name for f in fields(LengthProfile)}
    assert documented("`profile/latency.json`") == [field.name for field in fields(Quality)]
    assert set(documented("`variants/V/train/metrics.jsonl`")) >= set(StepRow.model_fields)
    rest = documented("`variants/V/train/`: the rest")
    assert set(rest) >= set(TrainSummary.model_fields) | {"variant", "loss_first"}
    assert set(documented("`variants/V/eval/`")) >= set(EvaluationResult.model_fields)
    manifest = write_manifest(
        tmp_path / "manifest.json",
        stage="plan",
        config="",
        inputs={},
        device="cpu",
        backend="none",
        seconds=0.0,
        mlflow_run_id=None,
    )
    assert documented("`manifest.json`, in every stage's folder") == list(manifest)
