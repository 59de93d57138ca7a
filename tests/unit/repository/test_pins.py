"""The pins: conda and pip agree, every dependency is pinned in its range, no source is named."""

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = ("requirements.lock", "requirements-dev.lock")


def pins(repository: Path, name: str) -> list[str]:
    lines = (repository / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture
def locked(repository: Path) -> dict[str, str]:
    found = [Requirement(pin) for name in LOCKS for pin in pins(repository, name)]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in found}


@pytest.fixture
def project(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.fixture
def lock_script(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock", repository / ".ci" / "lock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_pin_is_exact_and_public(repository: Path) -> None:
    for name in LOCKS:
        for pin in pins(repository, name):
            assert re.fullmatch(r"[\w.-]+==[\w.!]+(; .+)?", pin), f"{name}: {pin}"


def test_locks_name_no_source(repository: Path) -> None:
    for name in (*LOCKS, "environment.yml", "pyproject.toml"):
        text = (repository / name).read_text()
        source = re.search(r"index-url|find-links|://\S*(pypi|wheel|whl)|\+cpu|\+cu\d", text)
        assert source is None, f"{name}: {source.group()}"


def test_conda_has_the_same_pins(repository: Path) -> None:
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    section = next(entry for entry in environment["dependencies"] if isinstance(entry, dict))
    assert section["pip"] == [pin for name in LOCKS for pin in pins(repository, name)]
    assert "python=3.11" in environment["dependencies"]


def test_dependencies_are_pinned_within_their_ranges(project: dict, locked: dict[str, str]) -> None:
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for requirement in map(Requirement, wanted):
        pin = locked.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name}: not in a lock"
        assert requirement.specifier.contains(pin), f"{requirement}: {pin} is pinned"


def test_freeze_becomes_pins(lock_script: ModuleType) -> None:
    frozen = (
        "numpy==2.4.6\ntorch==2.13.0+cpu\ntriton==3.7.1\npip==25.0\nnvidia-nccl-cu12==2.1\n"
        "-e git+ssh://somewhere#egg=sparsebalance\nsetuptools==84.2.1\n"
    )
    assert lock_script.pins_of(frozen) == [
        "numpy==2.4.6",
        "torch==2.13.0",
        'triton==3.7.1; platform_system == "Linux"',
        "setuptools==84.2.1",
    ]


@pytest.mark.parametrize("name", [*LOCKS, "environment.yml"])
def test_rewriting_the_same_pins_changes_nothing(
    repository: Path, lock_script: ModuleType, tmp_path: Path, name: str
) -> None:
    copy = tmp_path / name
    copy.write_text((repository / name).read_text())
    conda = name == "environment.yml"
    same = [pin for lock in (LOCKS if conda else [name]) for pin in pins(repository, lock)]
    lock_script._rewrite(copy, same, indent="      - " if conda else "")
    assert copy.read_text() == (repository / name).read_text()
