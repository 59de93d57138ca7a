"""Starts ranks, and snakemake, as forks of processes that have imported what they need.

A rank that torchrun starts spends 3 s of CPU on imports, some hundred times that of a tiny
training. Ranks here find the environment and the store that torchrun's would. What they do not
have is a launcher: restarts and signals are tested with torchrun. Forks of one process share its
hash seed, so what ranks must decide alike is decided by forks of two. Of the 1.5 s of CPU that
snakemake takes to plan, imports are one.
"""

import multiprocessing
import os
import random
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest.mock import patch

import numpy as np
from torch.distributed import TCPStore

FORKS = multiprocessing.get_context("forkserver")
SERVERS = [forkserver.ForkServer() for _ in range(2)]


def run_forked(
    words: list[str], *, num_ranks: int, num_seeds: int, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Returns the outcome of a script, or of a module after ``-m``, on some ranks.

    The first rank that fails gives the exit status, and the others are told to end, as by torchrun.
    Ranks have one or two hash seeds, by turns.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environments = [
        dict(os.environ) | _environment(rank, num_ranks, store.port) for rank in range(num_ranks)
    ]
    servers = [SERVERS[rank % num_seeds] for rank in range(num_ranks)]
    return _outcome(
        words, zip(environments, servers, strict=True), folder=Path.cwd(), timeout=timeout
    )


def run_forked_in(
    folder: Path, words: list[str], *, environment: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Returns the outcome of a program that runs in a folder and finds its own copy of ours."""
    return _outcome(words, [(environment, SERVERS[0])], folder=folder, timeout=timeout)


def _outcome(
    words: list[str],
    places: Iterable[tuple[dict[str, str], forkserver.ForkServer]],
    *,
    folder: Path,
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as name:
        streams = [Path(name) / stream for stream in ("stdout", "stderr")]
        processes = [
            _start(server, (words, environment, folder, streams)) for environment, server in places
        ]
        status = _status(processes, timeout)
        texts = [stream.read_text() for stream in streams]
    return subprocess.CompletedProcess(words, status, *texts)


def _start(server: forkserver.ForkServer, arguments: tuple[object, ...]) -> ForkServerProcess:
    """Starts a fork of a server, which is started itself unless it runs."""
    server.set_forkserver_preload(["imported"])
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(paths)):
        server.ensure_running()
    process = FORKS.Process(target=_run, args=arguments)
    with patch.object(forkserver, "connect_to_new_process", server.connect_to_new_process):
        process.start()
    return process


def _environment(rank: int, num_ranks: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
    }


def _status(processes: list[ForkServerProcess], timeout: float) -> int:
    """Waits for all; returns 0, or the exit code of the first that failed.

    The others may be about to say why they end, so they are asked to end, not killed.
    """
    running, status = {process.sentinel: process for process in processes}, 0
    while running:
        ended = wait(running, timeout)
        if not ended:
            for process in running.values():
                process.kill()
            raise subprocess.TimeoutExpired("forks", timeout)
        for process in [running.pop(sentinel) for sentinel in ended]:
            process.join()
            status = status or process.exitcode
        if status:
            for process in running.values():
                process.terminate()
    return status


def _run(words: list[str], environment: dict[str, str], folder: Path, streams: list[Path]) -> None:
    assert "imported" in sys.modules, "the server does not say what it could not import"
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    if folder != Path.cwd():
        _move(folder, environment["PYTHONPATH"].split(os.pathsep))
    random.seed()  # forks would draw alike
    np.random.seed()
    sys.argv = words
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.modules.pop(f"{words[1]}.__main__", None)  # runpy warns of a program that was imported
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[0], run_name="__main__")


def _move(folder: Path, paths: list[str]) -> None:
    """Goes to a folder; forgets our packages, which are found by other paths from now on."""
    os.chdir(folder)
    sys.path[:0] = paths
    for name in [name for name in sys.modules if name.split(".")[0] in ("sbcore", "sbkernels")]:
        del sys.modules[name]
