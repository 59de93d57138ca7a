"""Fixtures of the workflow's tests."""

import shutil
from pathlib import Path

import pytest
from fake_pipeline import Jobs, Pipeline, copy_checkout


@pytest.fixture
def pipeline(tmp_path: Path, repository: Path) -> Pipeline:
    """A pipeline that has not run."""
    return copy_checkout(repository, tmp_path / "checkout")


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> tuple[Path, Jobs]:
    """A pipeline that has run once, and the jobs that it ran."""
    folder = tmp_path_factory.mktemp("workflow") / "checkout"
    return folder, copy_checkout(repository, folder).jobs()


@pytest.fixture
def finished(tmp_path: Path, first_run: tuple[Path, Jobs]) -> Pipeline:
    """A copy of the pipeline that has run once."""
    shutil.copytree(first_run[0], tmp_path / "checkout")
    return Pipeline(tmp_path / "checkout")
