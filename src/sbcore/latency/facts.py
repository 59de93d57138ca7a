"""What a latency table holds for."""

import subprocess
from typing import TYPE_CHECKING, Any

from sbcore.artifacts import package_versions
from sbcore.config.stages import ProfileLatencyStage
from sbcore.device import device_name
from sbcore.latency.table import FORMAT_VERSION

if TYPE_CHECKING:
    import torch


def describe_device(device: "torch.device", config: ProfileLatencyStage) -> dict[str, Any]:
    """Returns what the numbers hold for: device, driver, libraries, dtype, backend, blocks."""
    versions = package_versions()
    gpu = device.type == "cuda"
    backend = config.attention.backend
    return {
        "format_version": FORMAT_VERSION,
        "device": device_name(device),
        "device_type": device.type,
        "driver": _driver_version() if gpu else None,
        "threads": config.threads,
        "torch": versions["torch"],
        "triton": versions.get("triton"),
        "dtype": config.model.dtype,
        "backend": ("triton" if gpu else "torch") if backend == "auto" else backend,
        "block_size": config.attention.block_size,
    }


def _driver_version() -> str:
    """Returns the NVIDIA driver's version, as nvidia-smi tells it."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.splitlines()[0].strip()
