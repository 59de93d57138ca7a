"""Random state of a rank: saved, restored, or drawn anew for another number of ranks."""

from collections.abc import Mapping

import numpy as np
import torch


def random_state(device: torch.device, *, rank: int) -> dict[str, torch.Tensor]:
    """Returns this rank's generator states by name, uint8 on the host; copies."""
    state = {f"random.{rank}.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state[f"random.{rank}.cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Restores what `random_state` returned."""
    for name, value in state.items():
        if name.endswith(".cuda"):
            torch.cuda.set_rng_state(value, device)
        else:
            torch.set_rng_state(value)


def draw_random_state(seed: int, *, step: int, rank: int) -> None:
    """Seeds the generators from (seed, step, rank), for ranks that no state was saved for."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0]) >> 1)
