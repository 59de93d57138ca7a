"""The examples run and say what they promise."""

import os
import subprocess
import sys
from pathlib import Path

EXPECTED = {
    "plan_a_batch.py": ("no plan beats ", "     sab: ", "rank 3: "),
    "call_the_kernel.py": ("coverage by top_k: 1: 0.", "output (1090, 4, 16)", "norms of the "),
}


def test_every_example_runs(repository: Path) -> None:
    paths = [str(repository / "src"), str(repository / "kernels")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    examples = sorted((repository / "examples").glob("*.py"))
    assert [example.name for example in examples] == sorted(EXPECTED)
    for example in examples:
        done = subprocess.run(
            [sys.executable, str(example)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert all(words in done.stdout for words in EXPECTED[example.name]), done.stdout
