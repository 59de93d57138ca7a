"""The whole pipeline, for real, as small as it gets: data, two trainings on two ranks, a report."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from documented import undocumented

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

VARIANTS = ("baseline", "sab_dst")
STAGES = ("plan", "train", "eval")


@dataclass(frozen=True)
class Smoke:
    """A finished run."""

    folder: Path
    first: subprocess.CompletedProcess[str]
    second: subprocess.CompletedProcess[str]

    def read(self, name: str) -> dict:
        return json.loads((self.folder / "results" / "smoke" / name).read_text())


@pytest.fixture(scope="module")
def smoke(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    folder = tmp_path_factory.mktemp("smoke")

    for name in ("src", "kernels", "workflow", "profiles", "config"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / name, folder / name, ignore=ignored)
    shutil.copy(repository / "Snakefile", folder)
    paths = {
        "PYTHONPATH": [folder / "src", folder / "kernels"],
        "PATH": [Path(sys.executable).parent, os.environ["PATH"]],
    }
    environment = {name: os.pathsep.join(map(str, parts)) for name, parts in paths.items()}
    words = ["--cores", "2", "--configfile", "config/smoke.yaml"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "snakemake", *words],
            cwd=folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    first = run()
    assert first.returncode == 0, first.stdout[-4000:] + first.stderr[-4000:]
    return Smoke(folder, first, run())


def test_the_report_compares_both_variants_in_finite_numbers(smoke: Smoke) -> None:
    summary = smoke.read("report/summary.json")
    assert [row["variant"] for row in summary["variants"]] == list(VARIANTS)
    assert summary["variants"][0]["speedup"] == 1.0
    for row in summary["variants"]:
        numbers = list(leaves(row))
        assert len(numbers) > 12
        assert all(isinstance(x, int | float) and math.isfinite(x) for x in numbers), row


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "variant":
                yield from leaves(inner)
    else:
        yield value


def test_every_stage_says_what_it_did_and_on_what(smoke: Smoke) -> None:
    for said in ("prepare: 64 samples", "plan sab_dst: 8 steps", "train baseline: 8 steps"):
        assert said in smoke.first.stdout, said
    for variant in VARIANTS:
        for stage in STAGES:
            manifest = smoke.read(f"variants/{variant}/{stage}/manifest.json")
            assert manifest["mlflow_run_id"], (variant, stage)
        assert smoke.read(f"variants/{variant}/train/manifest.json")["backend"] == "torch"


def test_a_second_call_does_nothing(smoke: Smoke) -> None:
    assert smoke.second.returncode == 0
    assert "Nothing to be done" in smoke.second.stdout + smoke.second.stderr
    assert "train baseline" not in smoke.second.stdout


def test_nothing_half_written_is_left(smoke: Smoke) -> None:
    assert [str(p) for p in (smoke.folder / "results").rglob("*.part")] == []


def test_the_page_of_files_names_every_key_and_column(smoke: Smoke, repository: Path) -> None:
    page = (repository / "docs" / "reference" / "artifacts.md").read_text()
    run_dir = smoke.folder / "results" / "smoke"
    assert undocumented(run_dir, page) == []
    lacking = undocumented(run_dir, page.replace("`variant`", "").replace("`step_ms`", ""))
    found = ("plan/summary.json: variant", "train/metrics.jsonl: step_ms")
    assert {f"variants/{name}/{key}" for name in VARIANTS for key in found} <= set(lacking)


def test_mlflow_holds_a_run_per_variant_to_compare(smoke: Smoke) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{smoke.folder}/results/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("sparsebalance")
    runs = client.search_runs(
        [experiment.experiment_id],
        filter_string="tags.kind = 'variant' and tags.current = 'true'",
    )
    assert {run.data.tags["variant"] for run in runs} == set(VARIANTS)
    assert all("speedup" in run.data.metrics for run in runs)
    compare_page = smoke.read("closed.json")["compare_page"]
    assert all(run.info.run_id in compare_page for run in runs)
