"""Starts ranks: as the pipeline does, or as forks."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from forked import run_forked
from tiny import TinyRun, make_tiny_run

TIMEOUT_SECONDS = 240


@pytest.fixture(scope="session")
def rank_environment(repository):
    """Returns a function that gives today's environment to ranks that import this checkout."""

    def make():
        paths = [str(repository / "src"), str(repository / "kernels")]
        paths += filter(None, [os.environ.get("PYTHONPATH")])
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}

    return make


@pytest.fixture(scope="session")
def launcher(workers):
    """Returns a function that makes the command of torchrun from its options and a program."""

    def make(*options_and_program):
        words = [str(word) for word in options_and_program]
        begin = next(i for i, word in enumerate(words) if word == "-m" or word[0] != "-")
        if words[begin] != "-m":
            words.insert(begin, str(workers / "seldom.py"))
        return [sys.executable, "-m", "torch.distributed.run", *words]

    return make


@pytest.fixture(scope="session")
def two_nodes(rank_environment, launcher):
    """Returns a function that runs words under two launchers, as two nodes of one rank would.

    They meet by c10d; the function returns the stderr of both when both have ended well.
    """

    def run(*words):
        with socket.socket() as kept:
            # The system gives a port that is bound to nobody else; who names it may listen on it.
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            kept.bind(("localhost", 0))
            place = f"localhost:{kept.getsockname()[1]}"
            meeting = ["--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={place}"]
            command = launcher(*meeting, "--nproc-per-node=1", *words)
            nodes = [
                subprocess.Popen(command, env=rank_environment(), stderr=subprocess.PIPE, text=True)
                for _ in range(2)
            ]
            try:
                texts = [node.communicate(timeout=TIMEOUT_SECONDS)[1] for node in nodes]
            finally:
                for node in nodes:
                    node.terminate()  # launchers end their ranks
        assert [node.returncode for node in nodes] == [0, 0], "".join(texts)[-4000:]
        return "".join(texts)

    return run


@pytest.fixture(scope="session")
def torchrun(rank_environment, launcher):
    """Returns a function that runs a module or a script on some ranks and returns the process."""

    def run(*words, num_ranks=2, check=True):
        done = subprocess.run(
            launcher("--standalone", f"--nproc-per-node={num_ranks}", *words),
            env=rank_environment(),
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

    def run(*words, num_ranks=2, num_seeds=1, check=True):
        done = run_forked(
            [str(word) for word in words],
            num_ranks=num_ranks,
            num_seeds=num_seeds,
            timeout=TIMEOUT_SECONDS,
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
