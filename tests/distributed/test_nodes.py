"""Two nodes of a Slurm job, played by one host: real ranks behind a stand-in for srun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_slurm import allocate, install
from tiny import TinyRun, planned_anew, tiny_config

from sbcore.config.compute import TopologyConfig
from sbcore.workflow.nodes import training_command

pytestmark = pytest.mark.distributed

VARIANT = "baseline"


@pytest.fixture(scope="module")
def on_two_nodes(tiny_run, tmp_path_factory) -> TinyRun:
    """The same run configured for two nodes; plans do not know of nodes."""
    config = tiny_config("step")
    topology = config.topology.model_copy(update={"num_nodes": 2})
    config = config.model_copy(update={"topology": topology})
    return planned_anew(tiny_run, tmp_path_factory.mktemp("nodes"), config)


@pytest.fixture(scope="module")
def srun(rank_environment, tmp_path_factory):
    """Returns a function that trains as the rule does in a job of two nodes."""
    tools = tmp_path_factory.mktemp("slurm")
    install(tools)
    job = str(os.getpid())  # its ranks meet at a port that follows from it, which is ours alone

    def train(*words):
        environment = rank_environment() | allocate(tools, num_nodes=2, job=job)
        places = [str(tools), str(Path(sys.executable).parent), environment["PATH"]]
        environment["PATH"] = os.pathsep.join(places)
        topology = TopologyConfig(num_nodes=2, device="cpu")
        command = [*training_command(topology).split(), *map(str, words)]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=240, check=False
        )

    return train


def losses_of(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows]


def test_two_nodes_of_a_rank_each_train_as_two_ranks_of_one(
    tiny_run, on_two_nodes, forked, srun, tmp_path
):
    forked("-m", "sbcore.train", *tiny_run.words(VARIANT, tmp_path / "one"))
    done = srun(*on_two_nodes.words(VARIANT, tmp_path / "two"))
    assert done.returncode == 0, done.stderr[-4000:]
    one, two = (losses_of(tmp_path / name) for name in ("one", "two"))
    assert len(one) == 8
    np.testing.assert_array_equal(two, one)
