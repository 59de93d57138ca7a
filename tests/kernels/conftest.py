"""Where the tests of kernels keep their tensors."""

import pytest
import torch

if not torch.cuda.is_available():
    from quick_interpreter import make_quick

    make_quick()


@pytest.fixture(scope="session")
def device() -> str:
    """Where the Triton tests keep their tensors."""
    return "cuda" if torch.cuda.is_available() else "cpu"
