"""Run by every rank: writes what follows from its hash seed."""

import sys

sys.stdout.write(f"{hash('top_k')}\n")
