"""The thread that writes a checkpoint while training goes on.

It writes through torch.distributed.checkpoint over a gloo group of its own, since the trainer's
collectives go on meanwhile. When every rank is through, rank 0 seals and renames the folder.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from sbcore.train.checkpoint_folder import Cursor, part_folder, publish, seal
from sbcore.train.identity import RunIdentity
from sbcore.train.restore import first_failure

ARRAYS = "arrays.npz"


@dataclass(frozen=True)
class Pending:
    """What a checkpoint will hold; nothing of it changes while it is written."""

    cursor: Cursor
    tensors: dict[str, torch.Tensor]  # on the host once ``copied`` returns
    copied: Callable[[], None]
    arrays: dict[str, NDArray[Any]]
    write_files: Callable[[Path], None]


class CheckpointWriter:
    """Writes one checkpoint after the other."""

    def __init__(
        self,
        folder: Path,
        *,
        identity: RunIdentity,
        keep: int,
        device: torch.device,
        group: dist.ProcessGroup,
    ) -> None:
        self.folder, self.identity, self.keep = folder, identity, keep
        self._group, self._is_first = group, dist.get_rank() == 0
        self._thread = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="checkpoint",
            initializer=_use_device,
            initargs=(device,),
        )

    def submit(self, pending: Pending) -> "Future[str | None]":
        """Starts writing; the result is what went wrong, the same on all ranks, or None."""
        return self._thread.submit(self._write, pending)

    def shutdown(self) -> None:
        """Ends the thread when it is through."""
        self._thread.shutdown()

    def _write(self, pending: Pending) -> str | None:
        part = part_folder(self.folder, pending.cursor.step)
        failure: list[str | None] = [None]
        try:
            pending.copied()
            # No copies ahead: the tensors are on the host already.
            writer = FileSystemWriter(part, per_thread_copy_ahead=0)
            state_dict_saver.save(pending.tensors, storage_writer=writer, process_group=self._group)
            if self._is_first:
                self._complete(part, pending)
        except CheckpointException as error:
            failure = [first_failure(error)]
        except Exception as error:  # whatever it is, training goes on without this checkpoint
            failure = [f"{type(error).__name__}: {error}"]
        dist.broadcast_object_list(failure, src=0, group=self._group)
        if failure[0] is not None and self._is_first:
            shutil.rmtree(part, ignore_errors=True)
        return failure[0]

    def _complete(self, part: Path, pending: Pending) -> None:
        np.savez(part / ARRAYS, allow_pickle=False, **pending.arrays)
        pending.write_files(part)
        seal(part, pending.cursor, self.identity)
        publish(self.folder, pending.cursor.step, keep=self.keep)


def _use_device(device: torch.device) -> None:
    """A new thread would use the first GPU of the host."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
