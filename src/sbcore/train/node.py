"""``srun ... python -m sbcore.train.node WORDS``: becomes this node's torchrun.

Slurm starts it once on every node of a job step. The nodes meet at the first one, at a port that
follows from the job's number; docs/decisions/several-nodes.md says why the trainer is started so.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from sbcore.config.compute import TopologyConfig
from sbcore.config.load import load_stage
from sbcore.config.stages import TrainStage
from sbcore.errors import SparseBalanceError
from sbcore.train.inputs import parse_arguments

_FIRST_PORT, _NUM_PORTS = 20_000, 10_000
"""Below what Linux hands out to connections, so that none sits on the port."""

_JOIN_SECONDS = 300
"""How long a node waits for the first one, which may still read torch from a network disk."""


@dataclass(frozen=True)
class JobStep:
    """The Slurm job step that this process is a task of."""

    job: int
    step: str
    node: int
    num_tasks: int
    hosts: tuple[str, ...]


def read_step(environment: Mapping[str, str]) -> JobStep:
    """Returns the step that srun tells its tasks of.

    Raises:
        SparseBalanceError: This is no task of a step, or Slurm's tools are not there.
    """
    try:
        return JobStep(
            job=int(environment["SLURM_JOB_ID"]),
            step=environment["SLURM_STEP_ID"],
            node=int(environment["SLURM_NODEID"]),
            num_tasks=int(environment["SLURM_STEP_NUM_TASKS"]),
            hosts=_names(environment["SLURM_STEP_NODELIST"]),
        )
    except KeyError as error:
        raise SparseBalanceError(
            f"topology.num_nodes: {error.args[0]} is not set, so srun has not started this. start "
            "it with srun, or one torchrun on each node: docs/how-to/multi-gpu.md."
        ) from error
    except SparseBalanceError:
        raise
    except ValueError as error:
        raise SparseBalanceError(
            f"topology.num_nodes: SLURM_JOB_ID, SLURM_NODEID or SLURM_STEP_NUM_TASKS: {error}. "
            "leave them to srun."
        ) from error


def torchrun_words(topology: TopologyConfig, step: JobStep) -> list[str]:
    """Returns this node's torchrun up to the module that its ranks run.

    Raises SparseBalanceError where the step is not one task on each of the configured nodes.
    """
    wanted = topology.num_nodes
    if (step.num_tasks, len(step.hosts)) != (wanted, wanted) or not 0 <= step.node < wanted:
        raise SparseBalanceError(
            f"topology.num_nodes = {wanted}: srun started {step.num_tasks} tasks on "
            f"{len(step.hosts)} nodes, this is node {step.node}, counted from 0. "
            f"ask for one on each: srun --nodes={wanted} "
            f"--ntasks={wanted} --ntasks-per-node=1."
        )
    is_host = int(step.node == 0)
    return [
        "torchrun",
        *("--nnodes", str(wanted), "--nproc-per-node", str(topology.ranks_per_node)),
        *("--rdzv-backend", "c10d", "--rdzv-id", f"{step.job}.{step.step}"),
        *("--rdzv-endpoint", f"{step.hosts[0]}:{_FIRST_PORT + step.job % _NUM_PORTS}"),
        *("--rdzv-conf", f"is_host={is_host},read_timeout={_JOIN_SECONDS}"),
        *("--local-addr", step.hosts[step.node]),
    ]


def _names(nodes: str) -> tuple[str, ...]:
    """Returns the hosts behind Slurm's short form, as in node[01-04]."""
    try:
        done = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
        raise SparseBalanceError(
            f"scontrol show hostnames {nodes}: {(said or str(error)).strip()}. training on several "
            "nodes needs Slurm's tools on each of them."
        ) from error
    return tuple(done.stdout.split())


def main() -> None:
    """Becomes torchrun; what does not fit is one line and exit code 2."""
    try:
        topology = load_stage(parse_arguments().config, TrainStage).topology
        words = torchrun_words(topology, read_step(os.environ))
        _become([*words, "-m", "sbcore.train", *sys.argv[1:]])
    except SparseBalanceError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


def _become(words: list[str]) -> None:
    """Does not return."""
    try:
        os.execvp(words[0], words)
    except FileNotFoundError:
        raise SparseBalanceError(
            f"PATH = {os.environ.get('PATH')}: no {words[0]} there on {socket.gethostname()}. "
            "activate the environment before sbatch or srun: jobs inherit it."
        ) from None


if __name__ == "__main__":
    main()
