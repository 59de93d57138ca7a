"""Starts ranks as forks of one process that has imported what they need.

A rank that torchrun starts spends 6 s of CPU on imports, some hundred times that of a tiny
training. Ranks here find the environment and the store that torchrun's would. What they do not
have is a launcher, and hash seeds of their own: restarts, signals and what ranks must decide
alike are tested with torchrun.
"""

import multiprocessing
import os
import random
import runpy
import subprocess
import sys
import tempfile
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
from torch.distributed import TCPStore

IMPORTED = [
    "sbcore.train.command",
    "sbcore.ablation.__main__",
    "sbcore.train.rehearsal",
    "torch.optim.adamw",
    "torch.distributed.fsdp",
    "torch.distributed.checkpoint",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.qwen3.modeling_qwen3",
]


def run_forked(
    words: list[str], *, num_ranks: int, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Returns the outcome of a script, or of a module after ``-m``, on some ranks.

    The first rank that fails ends the others and gives the exit status, as under torchrun.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ranks = []
        for rank in range(num_ranks):
            environment = dict(os.environ) | _environment(rank, num_ranks, store.port)
            ranks.append(context.Process(target=_run_rank, args=(words, environment, folder)))
        for rank in ranks:
            rank.start()
        status = _status(ranks, timeout)
        texts = [(folder / stream).read_text() for stream in ("stdout", "stderr")]
    return subprocess.CompletedProcess(words, status, *texts)


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


def _status(ranks: list[multiprocessing.Process], timeout: float) -> int:
    """Waits for all ranks; returns 0, or the exit code of the first that failed."""
    running, status = {rank.sentinel: rank for rank in ranks}, 0
    while running:
        ended = wait(running, timeout)
        for rank in [running.pop(sentinel) for sentinel in ended]:
            rank.join()
            status = status or rank.exitcode
        if status or not ended:
            for rank in running.values():
                rank.kill()
        if not ended:
            raise subprocess.TimeoutExpired("ranks", timeout)
    return status


def _run_rank(words: list[str], environment: dict[str, str], folder: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in ((1, "stdout"), (2, "stderr")):
        file = os.open(folder / stream, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    random.seed()  # forks would draw alike
    np.random.seed()
    sys.argv = words
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.modules.pop(f"{words[1]}.__main__", None)  # runpy warns of a program that was imported
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[0], run_name="__main__")
