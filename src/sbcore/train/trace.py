"""A Chrome trace of chosen steps, on request: what the host launches and what the device runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


@contextmanager
def traced(step: int, steps: Sequence[int], folder: Path, rank: int) -> Iterator[None]:
    """Writes ``trace.step-N.rank-R.json.gz`` into the folder if the step is among those asked for.

    The device is waited for, so a traced step and the next take longer than others.
    """
    if step not in steps:
        yield
        return
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded:
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    recorded.export_chrome_trace(str(folder / f"trace.step-{step}.rank-{rank}.json.gz"))
