"""Checkpoints of a training: weights, moments, cursor, averages, random state.

``save_later`` copies this rank's part to the host and returns; the rest happens beside training.
"""

import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from sbcore.train.checkpoint_folder import (
    Choice,
    Cursor,
    check_folder,
    choose,
    clear_folder,
    read_cursor,
    remove_parts,
    reopen,
    step_folder,
    whole_checkpoints,
)
from sbcore.train.checkpoint_writer import ARRAYS, CheckpointWriter, Pending
from sbcore.train.identity import RunIdentity
from sbcore.train.randomness import draw_random_state, random_state, set_random_state
from sbcore.train.ranks import Ranks, by_first_rank
from sbcore.train.restore import check_tensors, load_arrays, load_tensors, read_index
from sbcore.train.staging import HostCopy, make_moments, training_tensors


class Checkpoints:
    """The checkpoints of one training. Every method is called by all ranks at the same step."""

    def __init__(
        self,
        folder: Path,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        ranks: Ranks,
        identity: RunIdentity,
        keep: int,
    ) -> None:
        self.folder, self.identity, self.ranks = folder, identity, ranks
        self.model, self.optimizer = model, optimizer
        group = dist.new_group(backend="gloo")
        assert group is not None, "every rank belongs to it"
        self._group: dist.ProcessGroup = group
        self._copy = HostCopy(ranks.device, optimizer)
        self._writer = CheckpointWriter(
            folder, identity=identity, keep=keep, device=ranks.device, group=group
        )
        self._writing: tuple[int, Future[str | None]] | None = None

    def newest(self) -> Path | None:
        """Returns the checkpoint to go on from, None to start anew; rank 0 decides for all.

        Raises:
            SparseBalanceError: It is of another training, none is whole, or the folder may not be
                read and written.
        """
        choice = by_first_rank(self._choose, self._group)
        for note in choice.notes:
            self._say(f"WARNING: {note} going back to the checkpoint before it")
        return choice.path

    def clear(self) -> None:
        """Removes all checkpoints: a training that starts anew must not go on from old ones.

        Raises:
            SparseBalanceError: They cannot be removed, or none could be written.
        """
        by_first_rank(lambda: clear_folder(self.folder), self._group)

    def save_later(
        self,
        cursor: Cursor,
        arrays: Mapping[str, NDArray[Any]],
        *,
        write_files: Callable[[Path], None],
    ) -> float:
        """Starts a checkpoint; returns the milliseconds that training stood still.

        ``arrays`` are small, equal on all ranks and copied at once. ``write_files`` is called with
        the folder on rank 0, later and in another thread: it must hold its own snapshot.
        A checkpoint still being written is waited for.
        """
        started = time.perf_counter()
        self._settle()
        tensors = self._copy.stage(training_tensors(self.model, self.optimizer))
        tensors |= random_state(self.ranks.device, rank=self.ranks.rank)
        pending = Pending(
            cursor=cursor,
            tensors=tensors,
            copied=self._copy.wait,
            arrays={name: np.array(array) for name, array in arrays.items()},
            write_files=write_files,
        )
        self._writing = (cursor.step, self._writer.submit(pending))
        return 1e3 * (time.perf_counter() - started)

    def poll(self) -> None:
        """Takes note of a checkpoint that was finished meanwhile; cheap, for every step."""
        if self._writing is not None and self._writing[1].done():
            self._settle()

    def being_written(self) -> Future[str | None] | None:
        """Returns the checkpoint in work, which any thread may wait for; None if there is none."""
        writing = self._writing
        return None if writing is None or writing[1].done() else writing[1]

    def close(self) -> None:
        """Waits for what is being written, whatever comes of it, and ends the writer."""
        try:
            self._settle()
        finally:
            self._writer.shutdown()

    def last_good(self, before: int) -> str:
        """Returns the newest checkpoint of at most ``before`` steps in words, for messages.

        It may lie among steps that were skipped, their gradients not being finite: they leave
        weights, moments and step counts as they were, and curves that are not finite teach nothing,
        so it is as good as the one before them. Going on from it counts on what they counted.
        """
        good = [p for p in whole_checkpoints(self.folder) if p <= step_folder(self.folder, before)]
        return str(good[-1]) if good else "none"

    def load(self, path: Path, *, seed: int) -> tuple[Cursor, dict[str, NDArray[Any]]]:
        """Restores weights, moments and random state; returns cursor and arrays.

        Raises:
            SparseBalanceError: It holds another model, or cannot be read.
        """
        make_moments(self.model, self.optimizer)
        tensors = training_tensors(self.model, self.optimizer)
        index, cursor = read_index(path), read_cursor(path)
        check_tensors(path, tensors, index)
        random = random_state(self.ranks.device, rank=self.ranks.rank)
        same_ranks = cursor.num_ranks == self.ranks.world_size
        if same_ranks and random.keys() <= index.state_dict_metadata.keys():
            load_tensors(path, tensors | random, self._group)
            set_random_state(random, self.ranks.device)
        else:
            load_tensors(path, tensors, self._group)
            draw_random_state(seed, step=cursor.step, rank=self.ranks.rank)
            self._say(
                f"{path} was written by {cursor.num_ranks} ranks, now {self.ranks.world_size}: "
                "random states are drawn anew from seed, step and rank"
            )
        return cursor, load_arrays(path / ARRAYS)

    def _choose(self) -> Choice:
        check_folder(self.folder)
        remove_parts(self.folder)
        choice = choose(self.folder, self.identity)
        if choice.path is not None:
            reopen(choice.path)
        return choice

    def _settle(self) -> None:
        """Waits for the checkpoint being written and reports a failure."""
        if self._writing is None:
            return
        step, future = self._writing
        try:
            failure = future.result()
        finally:
            self._writing = None  # not before: another thread may ask for what is waited for
        if failure is not None:
            place, good = step_folder(self.folder, step), self.last_good(step)
            self._say(f"WARNING: {place}: not written: {failure}; last good: {good}")

    def _say(self, line: str) -> None:
        if self.ranks.rank == 0:
            sys.stderr.write(f"checkpoints: {line}\n")
