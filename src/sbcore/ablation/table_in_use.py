"""The latency table that all variants are planned by, and what it was measured with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sbcore.ablation.arguments import shape_name
from sbcore.artifacts import read_json
from sbcore.config.schema import Config
from sbcore.errors import SparseBalanceError
from sbcore.latency.made_for import how_trained
from sbcore.latency.model import TableLatencyModel
from sbcore.latency.table import profile_files


def read_latency(path: Path, config: Config, *, device: str) -> TableLatencyModel:
    """Returns the table.

    Raises:
        SparseBalanceError: It is of another device, block size or number of layers.
    """
    block_size = config.attention.block_size
    latency = TableLatencyModel.read(path, block_size=block_size, device=device)
    num_layers = config.model.shape.num_hidden_layers
    if latency.num_layers != num_layers:
        raise SparseBalanceError(
            f"--latency = {path}: num_layers = {latency.num_layers}: the table of another model, "
            f"{shape_name(config.model.shape)} has {num_layers}. name its own."
        )
    return latency


def read_header(path: Path) -> dict[str, Any]:
    """Returns what the table says of its own measurement."""
    header: dict[str, Any] = read_json(profile_files(path)[1])
    return header


def differences(header: dict[str, Any], config: Config) -> Iterator[str]:
    """Yields what the table was measured with and the trainers are not, where it says so.

    Plans and predictions then rest on other times than those measured; speedups stay true.
    """
    ours = how_trained(config.model, config.train)
    ours["hidden_size"] = config.model.shape.hidden_size
    for key, value in ours.items():
        if key in header and header[key] != value:
            yield f"the latency table was measured with {key} = {header[key]}, here it is {value}"
