"""What a node of a Slurm job step starts, and what it refuses to start."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from fake_slurm import install

from sbcore.config.compute import TopologyConfig
from sbcore.errors import SparseBalanceError
from sbcore.train import node
from sbcore.train.node import JobStep, read_step, torchrun_words

TOPOLOGY = TopologyConfig(num_ranks=16, num_nodes=2, device="cuda")
STEP = JobStep(job=61234, step="0", node=1, num_tasks=2, hosts=("gpu-a", "gpu-b"))
TOLD = {
    "SLURM_JOB_ID": "61234",
    "SLURM_STEP_ID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "gpu-a,gpu-b",
}


def test_all_nodes_meet_at_the_first_which_alone_hosts_the_store() -> None:
    second = torchrun_words(TOPOLOGY, STEP)
    assert " ".join(second) == (
        "torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-id 61234.0"
        " --rdzv-endpoint gpu-a:21234 --rdzv-conf is_host=0,read_timeout=300 --local-addr gpu-b"
    )
    first = torchrun_words(TOPOLOGY, replace(STEP, node=0))
    differing = [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]
    assert differing == [
        ("is_host=1,read_timeout=300", "is_host=0,read_timeout=300"),
        ("gpu-a", "gpu-b"),
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"num_tasks": 16},
        {"num_tasks": 1, "hosts": ("gpu-a",)},
        {"hosts": ("gpu-a",)},
        {"node": 2},
        {"node": -1},
    ],
)
def test_a_step_that_is_not_a_task_on_each_node_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(SparseBalanceError, match=r"^topology.num_nodes = 2: srun started \d+ tas"):
        torchrun_words(TOPOLOGY, replace(STEP, **changed))


def test_a_step_is_what_srun_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    assert read_step(TOLD) == STEP


@pytest.mark.parametrize("missing", TOLD)
def test_outside_a_step_a_line_says_how_to_start(missing: str) -> None:
    told = {name: value for name, value in TOLD.items() if name != missing}
    with pytest.raises(SparseBalanceError, match=f"{missing} is not set, so srun has not"):
        read_step(told)


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "SLURM_NODEID", "SLURM_STEP_NUM_TASKS"])
def test_a_number_that_is_none_is_one_line(name: str) -> None:
    with pytest.raises(SparseBalanceError, match=r"^topology.num_nodes: .*'61234_\[1-4\]'"):
        read_step(TOLD | {name: "61234_[1-4]"})


def test_without_slurms_tools_the_call_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SparseBalanceError, match=r"^scontrol show hostnames gpu-a,gpu-b: "):
        read_step(TOLD)


def test_what_slurms_tool_says_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "scontrol"
    tool.write_text("#!/bin/sh\necho 'Invalid hostlist' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    with pytest.raises(SparseBalanceError, match=r"gpu-a,gpu-b: Invalid hostlist\. training on"):
        read_step(TOLD)


def test_a_node_without_torchrun_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SparseBalanceError, match=f"^PATH = {tmp_path}: no torchrun there on "):
        node._become(["torchrun"])
