"""What Slurm is asked for when a variant is trained, through the real plugin and a fake Slurm."""

import importlib.util
import os
from pathlib import Path

import pytest
from fake_pipeline import Pipeline
from fake_slurm import calls, install, options

PLUGIN = importlib.util.find_spec("snakemake_executor_plugin_slurm")

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(PLUGIN is None, reason="snakemake-executor-plugin-slurm is not installed"),
]

TRAINING = Path("results/demo/variants/sab/train/summary.json")
TASK_WORDS = ("--ntasks", "--ntasks-per-gpu", "--ntasks-per-node")


def train(pipeline: Pipeline, topology: dict[str, object]) -> tuple[Path, str]:
    """Trains a variant in a job; returns where the calls are kept, and what torchrun was told."""
    tools = pipeline.folder / "bin"
    install(tools)
    paths = [pipeline.environment["PYTHONPATH"], str(Path(PLUGIN.origin).parents[1])]
    pipeline.environment["PYTHONPATH"] = os.pathsep.join(paths)
    pipeline.place(topology)
    # As documented, so no --cores. Other stages have run; each would be a job of its own.
    words = ["--workflow-profile", "profiles/slurm"]
    words += ["--allowed-rules", "train_variant", "--forcerun", str(TRAINING)]
    words += ["--slurm-init-seconds-before-status-checks", "1", "--", str(TRAINING)]
    done = pipeline.run(*words)
    log = tools / "job.log"
    said = log.read_text() if log.exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + said
    return tools, (pipeline.folder / TRAINING).read_text()


def test_one_node_is_a_task_that_starts_all_ranks(finished: Pipeline) -> None:
    tools, torchrun = train(finished, {"num_ranks": 4, "device": "cuda"})
    (asked,) = (options(words)[0] for words in calls(tools, "sbatch"))
    assert (asked["--nodes"], asked["--gpus"], asked["--cpus-per-gpu"]) == ("1", "4", "8")
    assert not asked.keys() & {*TASK_WORDS, "--gres"}
    (step,) = (options(words)[0] for words in calls(tools, "srun"))
    assert (step["--ntasks"], step["--nodes"], step["--gpus"]) == ("1", "1", "4"), "the plugin's"
    assert torchrun.startswith("--standalone --nproc-per-node 4 -m sbcore.train --config ")


def test_two_nodes_are_a_task_on_each_with_its_share_of_the_gpus(finished: Pipeline) -> None:
    tools, torchrun = train(finished, {"num_ranks": 16, "num_nodes": 2, "device": "cuda"})
    (asked,) = (options(words)[0] for words in calls(tools, "sbatch"))
    assert {name: asked[name] for name in asked.keys() & TASK_WORDS} == {"--ntasks": "2"}
    assert (asked["--nodes"], asked["--gres"], asked["--cpus-per-gpu"]) == ("2", "gpu:8", "8")
    assert "--gpus" not in asked, "a total, which Slurm may spread unevenly"
    (step,) = (options(words) for words in calls(tools, "srun"))
    assert step[0] == {
        "--nodes": "2",
        "--ntasks": "2",
        "--ntasks-per-node": "1",
        "--cpu-bind": "none",
        "--kill-on-bad-exit": "1",
    }, "the only srun: the plugin's own would hold what this one needs"
    assert step[1][:3] == ["python", "-m", "sbcore.train.node"]
    assert torchrun.startswith("--nnodes 2 --nproc-per-node 8 --rdzv-backend c10d")
    assert "--rdzv-endpoint localhost:24711 " in torchrun


def test_two_nodes_without_gpus_are_a_task_on_each(finished: Pipeline) -> None:
    tools, torchrun = train(finished, {"num_ranks": 4, "num_nodes": 2, "device": "cpu"})
    (asked,) = (options(words)[0] for words in calls(tools, "sbatch"))
    assert (asked["--nodes"], asked["--ntasks"]) == ("2", "2")
    assert not asked.keys() & {"--gres", "--gpus", "--cpus-per-gpu"}
    assert asked["--cpus-per-task"] == "8", "the profile's"
    assert "--nproc-per-node 2 " in torchrun
