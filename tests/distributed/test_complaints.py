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
