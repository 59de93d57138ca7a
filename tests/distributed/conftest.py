"""Starts ranks: as the pipeline does, or as forks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked import run_forked
from tiny import TinyRun, make_tiny_run

TIMEOUT_SECONDS = 240


@pytest.fixture(scope="session")
def torchrun(repository):
    """Returns a function that runs a module or a script on some ranks and returns the process."""

    def run(*words, num_ranks=2, check=True):
        paths = [str(repository / "src"), str(repository / "kernels")]
        paths += filter(None, [os.environ.get("PYTHONPATH")])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={num_ranks}", *map(str, words)]
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stderr[-4000:]
        return done

    return run


@pytest.fixture(scope="session")
def forked():
    """Returns a function with the words and the outcome of `torchrun`, but without a launcher."""

    def run(*words, num_ranks=2, check=True):
        done = run_forked(
            [str(word) for word in words], num_ranks=num_ranks, timeout=TIMEOUT_SECONDS
        )
        if check:
            assert done.returncode == 0, done.stderr[-4000:]
        return done

    return run


@pytest.fixture(scope="session")
def workers() -> Path:
    """The scripts that ranks run in these tests."""
    return Path(__file__).parent / "workers"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> TinyRun:
    """Inputs of trainings under barrier `step`, made once; nobody writes into them."""
    return make_tiny_run(tmp_path_factory.mktemp("tiny"), barrier="step")
