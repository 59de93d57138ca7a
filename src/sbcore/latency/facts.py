"""What a latency table holds for."""

import subprocess
from typing import TYPE_CHECKING, Any

from sbcore.artifacts import package_versions
from sbcore.config.stages import ProfileLatencyStage
from sbcore.device import device_name
from sbcore.latency.architecture import describe_shape
from sbcore.latency.as_trained import forward_of, train_config
from sbcore.latency.made_for import how_trained
from sbcore.latency.table import FORMAT_VERSION

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


def describe(
    device: "torch.device",
    config: ProfileLatencyStage,
    architecture: "PretrainedConfig",
    *,
    num_ranks: int,
) -> dict[str, Any]:
    """Returns what the numbers hold for: device, libraries, dtype, backend, ranks, shape."""
    versions = package_versions()
    gpu = device.type == "cuda"
    train = train_config(config, weighs=False)
    backend = config.attention.backend
    return {
        "format_version": FORMAT_VERSION,
        "device": device_name(device),
        "device_type": device.type,
        "driver": _driver_version() if gpu else None,
        "threads": config.threads,
        "torch": versions["torch"],
        "triton": versions.get("triton"),
        "backend": ("triton" if gpu else "torch") if backend == "auto" else backend,
        "block_size": config.attention.block_size,
        "top_k": config.attention.top_k,
        "barrier": config.barrier.value,
        "num_ranks": num_ranks,
        "max_tokens": config.max_tokens,
        "forward": forward_of(architecture, config.model, train),
        **how_trained(config.model, train),
    } | describe_shape(architecture)


def _driver_version() -> str:
    """Returns the NVIDIA driver's version, as nvidia-smi tells it."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.splitlines()[0].strip()
