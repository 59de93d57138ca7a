"""One process at a time in a folder, and who may speak for one that died."""

import os
import resource
from contextlib import contextmanager

import pytest

from sbcore.errors import SparseBalanceError
from sbcore.train.lock import LOCK, has_left_in_words, lock, take_over


def test_a_second_one_is_told_who_is_there(tmp_path):
    with lock(tmp_path / "out"):
        with pytest.raises(SparseBalanceError) as caught:
            lock(tmp_path / "out")
        assert str(caught.value).startswith(f"{tmp_path}/out: process {os.getpid()} of ")
    lock(tmp_path / "out").close()


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(SparseBalanceError, match=f"^{tmp_path}/out: File exists: not a folder"):
        lock(tmp_path / "out")


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, capsys):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    lock(tmp_path).close()
    assert f"WARNING: {tmp_path}: Operation not supported: cannot be locked" in (
        capsys.readouterr().err
    )


def test_one_alone_speaks_for_a_process_that_died(tmp_path):
    assert not take_over(tmp_path), "nobody was there"
    held = lock(tmp_path)
    assert not take_over(tmp_path), "it lives"
    held.close()  # as the system does when a process is killed
    assert (tmp_path / LOCK).read_text()
    assert take_over(tmp_path)
    assert not take_over(tmp_path), "another one speaks"


@contextmanager
def full_disk():
    """No file can grow, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line_and_leaves_the_folder_free(tmp_path):
    with full_disk(), pytest.raises(SparseBalanceError) as caught:
        lock(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/.in-use: File too large: cannot be written. make room, or choose another "
        "--out."
    )
    lock(tmp_path).close()
    assert has_left_in_words(tmp_path) is False
    assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} of ")
