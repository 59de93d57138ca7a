"""How often Python looks for garbage in a process that runs one stage and ends.

Torch, transformers and mlflow leave hundreds of thousands of objects that live as long as the
process. Looking through them again and again while they come, and three times more on the way out,
was 1.3 of the 3.3 seconds of CPU that a short stage takes, and 2 of a rank's first 5.5.
"""

import atexit
import gc

_ALLOCATIONS = 10_000
"""Between two looks at young objects. Python's own number is 700; cycles that hold tensors die late
if it grows much further."""


def collect_seldom() -> None:
    """Lets a process start and end sooner; for commands, before they import what is large.

    What is alive at the end goes back to the system with the process, not object by object.
    """
    gc.set_threshold(_ALLOCATIONS)
    atexit.register(gc.freeze)
