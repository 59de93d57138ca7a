"""Starts torchrun as the pipeline does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def torchrun(repository):
    """Returns a function that runs a module or a script on some ranks and returns the process."""

    def run(*words, num_ranks=2, check=True):
        paths = [str(repository / "src"), str(repository / "kernels")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={num_ranks}", *map(str, words)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        if check:
            assert done.returncode == 0, done.stderr[-4000:]
        return done

    return run


@pytest.fixture(scope="session")
def workers() -> Path:
    """The scripts that torchrun starts in these tests."""
    return Path(__file__).parent / "workers"
