"""Without a CUDA device the Triton kernels run in Triton's interpreter, on small shapes."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    # Read when triton is imported, hence here and not in a fixture.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def device() -> str:
    """Where the Triton tests keep their tensors."""
    return "cuda" if torch.cuda.is_available() else "cpu"
