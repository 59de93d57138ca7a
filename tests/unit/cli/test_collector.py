"""Commands look for garbage seldom, and not at all on the way out."""

import subprocess
import sys

PROGRAM = """
import atexit, gc
atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 1000))
import sys
from sbcore.cli import main
sys.argv = ["sb", "--help"]
main()
"""


def test_a_command_neither_looks_often_nor_at_the_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # What is registered before the command runs after what the command registers.
    assert done.stdout.splitlines()[-1] == "10000 True"
