"""Fixtures of all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # as the stages set it before importing
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

if not torch.cuda.is_available():
    # Triton's interpreter stands in for a GPU. Read when triton is imported, which peft does too,
    # so before any test file is.
    os.environ["TRITON_INTERPRET"] = "1"

from sbcore.collector import collect_seldom

# What the shell says of terminals, jobs and servers must not decide what tests find.
FOREIGN = ("FORCE_COLOR", "TTY_", "SLURM_", "MLFLOW_TRACKING_", "SNAKEMAKE_", "PYTHONHASHSEED")
for variable in [name for name in os.environ if name.startswith(FOREIGN)]:
    del os.environ[variable]
os.environ["COLUMNS"] = "80"

# How long an example takes depends on what else the machine does.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")

collect_seldom()  # importing everything takes 7 s of each worker's time instead of 10

REPOSITORY = Path(__file__).parents[1]
SLOW = ("distributed", "workflow", "e2e")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real data sets, which are not ours to ship; tests say so when they are not there."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data not at {folder}")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts slow tests first, so that no worker is left with them; skips GPU tests without a GPU."""
    items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in SLOW))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
