"""Stands in for Slurm's commands on one machine: a job's nodes are all this host.

What the real ones do to a training is kept: sbatch runs the job on its first node, srun starts
tasks on all nodes of a job and tells them of their step, tasks fewer than nodes leave nodes out,
and a step inside another one waits for ever, which is an error here.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

JOB = "4711"
TOOLS = ("sbatch", "srun", "scontrol", "sacct", "sinfo")
WITH_VALUE = ("-n", "--job-name", "--output", "--comment", "-t", "--mem", "-D", "-p")


def install(folder: Path) -> None:
    """Writes the commands into a folder, which then also keeps what they were called with."""
    for name in TOOLS:
        tool = folder / name
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "{tool}" "$@"\n')
        tool.chmod(0o755)


def allocate(folder: Path, num_nodes: int, *, job: str = JOB) -> dict[str, str]:
    """Starts a job of so many nodes; returns what its first node's environment says of it."""
    (folder / "num_nodes").write_text(str(num_nodes))
    (folder / "job").write_text(job)
    return {"SLURM_JOB_ID": job, "SLURM_NNODES": str(num_nodes)}


def calls(folder: Path, name: str) -> list[list[str]]:
    """Returns the words of each call of a command."""
    kept = folder / f"{name}.calls"
    return [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []


def options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Returns a command's options by name, and the words after them."""
    found, rest = {}, list(words)
    while rest and rest[0].startswith("-"):
        name, _, value = rest.pop(0).partition("=")
        if name in WITH_VALUE:
            value = rest.pop(0)
        elif name.startswith("-n") and name[2:].isdigit():
            name, value = "--ntasks", name[2:]
        found[name] = value
    return found, rest


def sbatch(folder: Path, words: list[str]) -> int:
    """Runs the job at once and to its end, as the batch step of its first node."""
    asked = options(words)[0]
    environment = os.environ | allocate(folder, int(asked.get("--nodes", "1")))
    environment |= {"SLURM_GPUS": asked["--gpus"]} if "--gpus" in asked else {}
    with (folder / "job.log").open("a") as log:
        done = subprocess.run(
            ["sh", "-c", asked["--wrap"]], env=environment, stdout=log, stderr=log, check=False
        )
    (folder / "state").write_text("FAILED" if done.returncode else "COMPLETED")
    sys.stdout.write(f"{JOB}\n")
    return 0


def srun(folder: Path, words: list[str]) -> int:
    """Runs a step: its tasks, spread evenly over its nodes."""
    asked, command = options(words)
    job = folder / "job"
    ours = job.exists() and os.environ.get("SLURM_JOB_ID") == job.read_text()
    if not ours or "INSIDE_A_STEP" in os.environ:
        sys.stderr.write("srun: no job, or inside a step that holds all of it\n")
        return 1
    allocated = int((folder / "num_nodes").read_text())
    num_nodes = int(asked.get("--nodes", allocated))
    num_tasks = int(asked.get("--ntasks", num_nodes))
    num_nodes = min(num_nodes, num_tasks)
    if num_nodes > allocated:
        sys.stderr.write("srun: More processors requested than permitted\n")
        return 1
    step = {
        "INSIDE_A_STEP": "1",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": ",".join(["localhost"] * num_nodes),
        "SLURM_STEP_NUM_TASKS": str(num_tasks),
    }
    per_node = num_tasks // num_nodes
    tasks = [
        subprocess.Popen(
            command,
            env=os.environ
            | step
            | {"SLURM_PROCID": str(task), "SLURM_NODEID": str(task // per_node)},
        )
        for task in range(num_tasks)
    ]
    return _wait(tasks, kill="--kill-on-bad-exit" in asked)


def _wait(tasks: list[subprocess.Popen[bytes]], *, kill: bool) -> int:
    """Returns the worst exit code; with kill the first bad one ends all tasks."""
    while any(task.poll() is None for task in tasks):
        if kill and any(task.poll() for task in tasks):
            for task in tasks:
                task.terminate()
        time.sleep(0.05)
    return max(abs(task.returncode) for task in tasks)


def scontrol(folder: Path, words: list[str]) -> int:
    """Shows the hosts of a list of nodes; knows nothing of the cluster's configuration."""
    if words[:2] == ["show", "hostnames"]:
        sys.stdout.write(words[2].replace(",", "\n") + "\n")
    return 0


def sacct(folder: Path, words: list[str]) -> int:
    """Shows the state of the last job; there are no accounts."""
    sys.stdout.write("none\n" if "-nu" in words else f"{JOB}|{(folder / 'state').read_text()}\n")
    return 0


def sinfo(folder: Path, words: list[str]) -> int:
    """Shows the default partition."""
    sys.stdout.write("gpus*\n")
    return 0


def main(tool: Path, words: list[str]) -> int:
    """Keeps the words and stands in for the command of that name."""
    with (tool.parent / f"{tool.name}.calls").open("a") as kept:
        kept.write(json.dumps(words) + "\n")
    return globals()[tool.name](tool.parent, words)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
