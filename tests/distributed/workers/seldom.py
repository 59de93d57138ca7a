"""Run by torchrun: the script that is named next, which looks for garbage as seldom as the trainer.

Its imports take a rank 3 s of CPU then instead of 5.
"""

import runpy
import sys

from sbcore.collector import collect_seldom

if __name__ == "__main__":
    collect_seldom()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
