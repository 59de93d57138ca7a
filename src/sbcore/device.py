"""Which device a stage runs on, and the one name that files and reports know it by."""

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from sbcore.errors import SparseBalanceError

if TYPE_CHECKING:
    import torch

_CPU_FACTS = Path("/proc/cpuinfo")


def choose_device(wanted: str, *, num_ranks: int, local_rank: int) -> "torch.device":
    """Returns this rank's device; "auto" takes a GPU where every rank of the host gets one.

    Raises SparseBalanceError where "cuda" is asked for and GPUs are fewer than ranks.
    """
    import torch

    available = torch.cuda.device_count()
    if wanted == "cuda" and available < num_ranks:
        ranks = "one rank" if num_ranks == 1 else f"{num_ranks} ranks"
        raise SparseBalanceError(
            f"topology.device = cuda: {available} GPUs for {ranks} on this host. "
            "use device: cpu or fewer ranks."
        )
    if wanted == "cpu" or available < num_ranks:
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


def device_name(device: "torch.device") -> str:
    """Returns the GPU's name, or the processor's with the cores that may be used."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"CPU {_processor()} ({len(os.sched_getaffinity(0))} cores)"


def _processor() -> str:
    if _CPU_FACTS.is_file():
        for line in _CPU_FACTS.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
