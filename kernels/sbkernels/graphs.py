"""A call as a CUDA graph: what it takes on the device alone, and whether it can be captured."""

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def captured(call: Callable[[], Result]) -> Callable[[], Result]:
    """Returns the replay of a CUDA graph of the call, which fills and returns the same tensors.

    The call is made once beforehand on another stream, as capturing wants it: what is compiled
    or allocated once lies behind it then.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Result:
        graph.replay()
        return result

    return replay
