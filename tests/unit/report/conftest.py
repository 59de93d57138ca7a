"""Fixtures of the report's tests."""

import shutil

import pytest
from fabricated_run import make_run


@pytest.fixture(scope="session")
def pristine_run(tmp_path_factory):
    """A finished run of four variants, not to be changed."""
    return make_run(tmp_path_factory.mktemp("pristine") / "fabricated")


@pytest.fixture
def run_dir(pristine_run, tmp_path):
    """A finished run of four variants, to be changed at will."""
    return shutil.copytree(pristine_run, tmp_path / "fabricated")
