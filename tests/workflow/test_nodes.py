"""Several nodes without Slurm: planned and shown, but nothing begins that could not end."""

import re

import pytest
from fake_pipeline import Pipeline

pytestmark = pytest.mark.workflow

TWO = {"num_ranks": 16, "num_nodes": 2, "device": "cuda"}


def test_only_training_asks_for_several_nodes(pipeline: Pipeline) -> None:
    pipeline.place(TWO)
    done = pipeline.call("-n", "-p")
    asked = dict(
        re.findall(r"^rule (\w+):.*?resources: tmpdir=\S+?((?:, \S+)*)$", done.stdout, re.M | re.S)
    )
    assert {rule for rule, more in asked.items() if "nodes=" in more} == {"train_variant"}
    for rule in ("profile_latency", "evaluate_variant"):
        assert asked[rule] == ", gpu=8"
    assert asked["make_base"] == ", gpu=1"


@pytest.mark.parametrize(("device", "threads"), [("cpu", 1), ("auto", 2), ("cuda", 2)])
def test_no_two_evaluations_share_a_gpu(pipeline: Pipeline, device: str, threads: int) -> None:
    pipeline.place({"device": device})
    shown = pipeline.call("-n", "-p").stdout
    rules = re.findall(r"^rule evaluate_variant:.*?resources:", shown, re.M | re.S)
    found = {int(number) for rule in rules for number in re.findall(r"threads: (\d+)", rule)}
    assert rules
    assert (found or {1}) == {threads}  # of one thread Snakemake says nothing


def test_nothing_begins_where_no_slurm_could_start_the_nodes(pipeline: Pipeline) -> None:
    pipeline.place(TWO)
    done = pipeline.call()
    assert done.returncode == 2
    assert "topology.num_nodes = 2: nodes are started by Slurm's srun" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (pipeline.folder / "results/demo/data").exists()
