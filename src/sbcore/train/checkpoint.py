"""Checkpoints: weights, optimizer, cursor, averages, random state; whole or not there at all.

A checkpoint is a folder ``step-N``, N steps done. It is written under another name and renamed
when every rank is through, so a killed run finds the last whole one.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from sbcore.artifacts import read_json, write_json
from sbcore.train.sharding import Ranks


@dataclass(frozen=True)
class Cursor:
    """Where training stands."""

    step: int
    digest: str  # of configuration, plan and start weights: what must agree to go on
    finished: bool


class Checkpoints:
    """The folder of a run's checkpoints."""

    def __init__(self, folder: Path, *, keep: int, digest: str, ranks: Ranks) -> None:
        self.folder, self.keep, self.digest, self.ranks = folder, keep, digest, ranks

    def newest(self) -> Path | None:
        """Returns the newest checkpoint of this very run; None if there is none or it is finished.

        A finished training that is asked for again starts anew: going on from one of its older
        checkpoints would mix two runs.
        """
        for path in sorted(self.folder.glob("step-*"), reverse=True):
            cursor = Cursor(**read_json(path / "cursor.json"))
            if cursor.digest == self.digest:
                return None if cursor.finished else path
        return None

    def clear(self) -> None:
        """Removes what another configuration left."""
        if self.ranks.rank == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        dist.barrier(self.ranks.host_group)

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """Yields a folder that becomes ``step-N`` when every rank has left the block."""
        part, done = self.folder / f".step-{step:08d}.part", self.folder / f"step-{step:08d}"
        if self.ranks.rank == 0:
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(done, ignore_errors=True)
            part.mkdir(parents=True)
        dist.barrier(self.ranks.host_group)
        yield part
        dist.barrier(self.ranks.host_group)
        if self.ranks.rank == 0:
            part.rename(done)
            for old in sorted(self.folder.glob("step-*"))[: -self.keep]:
                shutil.rmtree(old)
        dist.barrier(self.ranks.host_group)

    def save(
        self,
        folder: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        step: int,
        finished: bool,
        averages: dict[str, Any],
    ) -> None:
        """Writes this rank's part of the state after ``step`` steps."""
        model_state, optimizer_state = get_state_dict(model, optimizer)
        state_dict_saver.save(
            {"model": model_state, "optimizer": optimizer_state}, checkpoint_id=folder
        )
        rng = torch.get_rng_state().numpy()
        np.savez(folder / f"rank-{self.ranks.rank}.npz", rng=rng, **averages)
        if self.ranks.rank == 0:
            write_json(folder / "cursor.json", asdict(Cursor(step, self.digest, finished)))

    def load(
        self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[int, dict[str, Any]]:
        """Restores the state; returns the steps done and the averages."""
        model_state, optimizer_state = get_state_dict(model, optimizer)
        state = {"model": model_state, "optimizer": optimizer_state}
        state_dict_loader.load(state, checkpoint_id=path)
        set_state_dict(
            model, optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state
        )
        with np.load(path / f"rank-{self.ranks.rank}.npz", allow_pickle=False) as saved:
            arrays = dict(saved)
        torch.set_rng_state(torch.from_numpy(arrays.pop("rng")))
        return int(read_json(path / "cursor.json")["step"]), arrays
