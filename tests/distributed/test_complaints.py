"""What is wrong is said once, whoever finds it first; and said, though only one rank found it."""

import pytest


@pytest.mark.parametrize(
    ("late_by", "said"), [("1,0", ["data: found by 0"]), (",0", ["rank 1: data: found by 1"])]
)
def test_one_line_says_what_is_wrong(late_by, said, tiny_run, forked, workers, tmp_path):
    words = tiny_run.words("baseline", tmp_path / "out")
    done = forked(str(workers / "one_rank_errs.py"), late_by, *words, check=False)
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if "found by" in line] == said


def test_what_rank_0_alone_fails_to_do_ends_all_ranks(forked, workers):
    done = forked(workers / "first_rank_fails.py", check=False)
    said = "out/a: No space left on device: cannot be read or written. make room, or look at its "
    lines = sorted(line for line in done.stdout.splitlines() if line)
    assert lines == [f"rank {rank}: {said}permissions." for rank in range(2)]
    assert done.returncode == 0


def test_a_disk_that_is_full_at_the_start_is_one_line(tiny_run, forked, workers, tmp_path):
    words = tiny_run.words("baseline", tmp_path / "out")
    done = forked(workers / "no_room.py", *words, check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "No space left on device" in line]
    assert line.startswith(f"{tmp_path}/out/.in-use: No space left on device: cannot be written")
    assert "Traceback" not in done.stderr
