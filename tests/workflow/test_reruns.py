"""Which jobs run: all of them once, then none, then exactly those that an edit concerns."""

import re
from pathlib import Path

import pytest
import yaml
from fake_pipeline import Jobs, Pipeline

pytestmark = pytest.mark.workflow

ONCE = ("make_demo", "make_base", "prepare_data", "profile_lengths", "profile_latency")
EACH = ("plan_variant", "train_variant", "evaluate_variant")
VARIANTS = ("baseline", "sab", "sab_dst", "dense")
REPORT = {"write_report": 1, "close_run": 1}


def test_all_jobs_once_then_none(first_run: tuple[object, Jobs], finished: Pipeline) -> None:
    each = {f"{rule}/{variant}": 1 for rule in EACH for variant in VARIANTS}
    assert first_run[1] == dict.fromkeys(ONCE, 1) | each | REPORT
    assert finished.jobs() == {}


def test_a_call_for_one_file_ends_the_pipeline_s_run(pipeline: Pipeline) -> None:
    done = pipeline.call("results/demo/variants/sab/plan/plan.parquet")
    assert done.returncode == 0, done.stderr
    assert "close-run says so" not in done.stdout
    assert done.stdout.count("end-run says so") == 1
    (pipeline.folder / "fail").write_text("train")
    failed = pipeline.call("results/demo/variants/sab/train/summary.json")
    assert "fail-run says so" in failed.stdout
    assert "end-run says so" not in failed.stdout


@pytest.mark.parametrize(
    ("file", "rule"),
    [
        ("data/tokens.bin", "prepare_data"),
        ("variants/sab/plan/plan.parquet", "plan_variant/sab"),
        ("variants/sab/train/model/config.json", "train_variant/sab"),
    ],
)
def test_a_deleted_file_is_made_again_where_it_is_named(
    finished: Pipeline, file: str, rule: str
) -> None:
    """As docs/how-to/rerun-a-stage.md says."""
    deleted = finished.folder / "results" / "demo" / file
    deleted.unlink()
    output = deleted.parent if deleted.parent.name == "model" else deleted
    if output != deleted:
        output.joinpath(".snakemake_timestamp").unlink(missing_ok=True)
        output.rmdir()
    assert finished.jobs() == {}
    assert finished.jobs(str(output.relative_to(finished.folder))) == {rule: 1}
    assert deleted.exists()


def test_edited_tuner_reruns_its_variant(finished: Pipeline) -> None:
    finished.edit(lambda values: values["variants"]["sab_dst"]["tuner"].update(p=0.2))
    expected = REPORT | {"train_variant/sab_dst": 1, "evaluate_variant/sab_dst": 1}
    assert finished.jobs("-n") == expected
    assert finished.jobs("-n") == expected, "a dry run changes nothing"
    assert finished.jobs() == expected
    assert finished.jobs() == {}


def test_edited_evaluation_trains_nothing(finished: Pipeline) -> None:
    finished.edit(lambda values: values.setdefault("evaluate", {}).update(max_examples=7))
    assert finished.jobs() == REPORT | {f"evaluate_variant/{name}": 1 for name in VARIANTS}


def test_another_shape_makes_no_other_data(finished: Pipeline) -> None:
    shape = {"num_hidden_layers": 3}
    finished.edit(
        lambda values: values.setdefault("model", {}).setdefault("shape", {}).update(shape)
    )
    jobs = finished.jobs("-n")
    assert jobs["make_base"] == 1
    assert not {"make_demo", "prepare_data", "profile_lengths"} & set(jobs)


def test_another_type_of_the_saved_weights_measures_and_plans_nothing(finished: Pipeline) -> None:
    finished.edit(lambda values: values.setdefault("model", {}).update(save_dtype="bfloat16"))
    rules = ("train_variant", "evaluate_variant")
    assert finished.jobs("-n") == REPORT | {f"{r}/{name}": 1 for r in rules for name in VARIANTS}


def test_edit_taken_back_reruns_nothing(finished: Pipeline) -> None:
    config = finished.folder / "config" / "demo.yaml"
    kept = config.read_text()
    finished.edit(lambda values: values.update(seed=11))
    assert "make_demo" in finished.jobs("-n")
    config.write_text(kept)
    assert finished.jobs() == {}


def test_a_new_variant_runs_alone(finished: Pipeline) -> None:
    finished.edit(lambda values: values["variants"].update(lbb={"balancer": {"kind": "length"}}))
    assert finished.jobs("-n") == REPORT | {f"{rule}/lbb": 1 for rule in EACH}


@pytest.mark.parametrize("stage", ["prepare", "train", "evaluate"])
def test_a_forced_stage_that_failed_is_not_hidden_by_the_report_of_before(
    finished: Pipeline, stage: str
) -> None:
    (finished.folder / "fail").write_text(stage)
    rule = {"prepare": "prepare_data"}.get(stage, f"{stage}_variant")
    assert finished.call("--forcerun", rule).returncode == 1
    (finished.folder / "fail").unlink()
    assert rule in {job.split("/")[0] for job in finished.jobs("-n")}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("report/templates/index.html.j2", REPORT),
        ("evaluate/scoring.py", REPORT | {f"evaluate_variant/{name}": 1 for name in VARIANTS}),
        ("cli/stage.py", {}),
    ],
)
def test_edited_code_reruns_its_stage(finished: Pipeline, file: str, expected: Jobs) -> None:
    path = finished.folder / "src" / "sbcore" / file
    path.write_text(path.read_text() + "\n")
    assert finished.jobs("-n") == expected


def test_the_catalog_s_snakefile_plans_the_same(pipeline: Pipeline) -> None:
    top = pipeline.jobs("-n")
    assert top
    assert pipeline.jobs("-n", "-s", "workflow/Snakefile") == top


def test_cluster_profile_names_existing_rules(repository: Path) -> None:
    profile = yaml.safe_load((repository / "profiles" / "slurm" / "profile.yaml").read_text())
    sources = "".join(file.read_text() for file in (repository / "workflow").rglob("*.smk"))
    rules = set(re.findall(r"^rule (\w+):", sources, re.MULTILINE))
    assert set(profile["set-resources"]) <= rules
    one_task_per_node = {"nodes": 1, "tasks": 0}
    assert profile["default-resources"].items() >= one_task_per_node.items()


def test_another_configuration_is_not_merged_with_the_demo(pipeline: Pipeline) -> None:
    (pipeline.folder / "one.yaml").write_text("run: one\nvariants: {baseline: {}}\n")
    jobs = pipeline.jobs("-n", "--configfile", "one.yaml")
    assert {name for name in jobs if "/" in name} == {f"{rule}/baseline" for rule in EACH}
