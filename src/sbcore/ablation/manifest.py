"""What the numbers rest on: written beside the csv files, a file per start."""

import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import torch

from sbcore.ablation.arguments import Arguments
from sbcore.artifacts import (
    FORMAT_VERSION,
    digest_file,
    digest_text,
    git_state,
    package_versions,
    write_json,
)
from sbcore.config.schema import Config

_DIGITS = 6
"""Of the configuration's digest, at the end of a run_id."""


class Manifest:
    """Grows with every setting, and is whole in the folder after each."""

    def __init__(self, arguments: Arguments, config: Config, *, device: str) -> None:
        self._started = time.perf_counter()
        self.run_id = _run_id(config)
        self._path = arguments.out / f"manifest-{self.run_id}.json"
        files = {path.name: path for path in arguments.lengths} | {"latency": arguments.latency}
        known = {"commit": arguments.commit, "dirty": None}
        self._settings: list[dict[str, Any]] = []
        self._values: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "stage": "ablation",
            "run_id": self.run_id,
            "command": sys.argv[1:],
            "config": config.model_dump(mode="json"),
            "inputs": {name: digest_file(path) for name, path in files.items()},
            **(git_state() if arguments.commit is None else known),
            "packages": package_versions() | _device_libraries(),
            "device": device,
            "data": "random tokens of the lengths, every 16th a target; random weights",
        }

    def note(self, values: Mapping[str, Any]) -> None:
        """Adds entries and writes the file."""
        self._values |= values
        seconds = round(time.perf_counter() - self._started, 1)
        write_json(self._path, self._values | {"settings": self._settings, "seconds": seconds})

    def add_setting(self, facts: Mapping[str, Any]) -> None:
        """Adds a setting that is done and writes the file."""
        self._settings.append(dict(facts))
        self.note({})


def same_configuration(one: str, other: str) -> bool:
    """Returns whether two starts, by their run_id, had the same configuration."""
    return one[-_DIGITS:] == other[-_DIGITS:]


def _run_id(config: Config) -> str:
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")  # starts side by side begin together
    return f"{now}-{digest_text(config.model_dump_json())[:_DIGITS]}"


def _device_libraries() -> dict[str, str]:
    """Returns the versions behind torch on a GPU."""
    if not torch.cuda.is_available():
        return {}
    return {
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "nccl": ".".join(str(part) for part in torch.cuda.nccl.version()),
    }
