"""Reads a checkpoint's tensors into the model and the optimizer, on any number of ranks.

Tensors are read by torch's restricted loader. The index of a distributed checkpoint is a pickle,
which torch itself reads without restriction; here only the few classes it is made of may load.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    Metadata,
    TensorStorageMetadata,
)

from sbcore.errors import SparseBalanceError

INDEX = ".metadata"

_CLASSES = {
    "torch.distributed.checkpoint.metadata": {
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "ChunkStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
    "pathlib": {"PosixPath", "WindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath"},
}


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _memory_format
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or name in _CLASSES.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong there")


def _memory_format(owner: type, name: str) -> Any:
    """Returns the member of the one enum in an index: Python 3.11.0 to 3.11.3 write it so."""
    if owner is not _MEM_FORMAT_ENCODING or name not in _MEM_FORMAT_ENCODING.__members__:
        raise pickle.UnpicklingError(f"getattr of {owner}.{name} does not belong there")
    return _MEM_FORMAT_ENCODING[name]


class _Reader(FileSystemReader):
    """Reads files, the index with the restriction above."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        metadata = read_index(Path(self.path))
        assert metadata.storage_meta is not None, "our writer leaves one"
        metadata.storage_meta.load_id = self.load_id
        return metadata


def read_index(path: Path) -> Metadata:
    """Returns the index of the checkpoint; raises SparseBalanceError if it is none of ours."""
    try:
        with (path / INDEX).open("rb") as stream:
            index = _IndexUnpickler(stream).load()
    except Exception as error:  # of any kind: changed bytes are other words of the pickle
        what = str(error) or type(error).__name__
        raise SparseBalanceError(
            f"{path / INDEX}: not the index of a checkpoint: {what}. delete {path}."
        ) from None
    if not isinstance(index, Metadata):
        raise SparseBalanceError(f"{path / INDEX}: not the index of a checkpoint. delete {path}.")
    return index


def load_tensors(path: Path, tensors: dict[str, torch.Tensor], group: dist.ProcessGroup) -> None:
    """Fills the tensors in place, each rank its own part; all ranks take part.

    Raises:
        SparseBalanceError: A tensor is missing or shaped otherwise, or a file cannot be read.
    """
    try:
        state_dict_loader.load(tensors, storage_reader=_Reader(path), process_group=group)
    except CheckpointException as error:
        raise SparseBalanceError(
            f"{path}: cannot be read: {first_failure(error)}. delete it to go on from the one "
            "before."
        ) from None


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Returns the arrays of an .npz file by name; raises SparseBalanceError if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            return dict(saved)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise SparseBalanceError(
            f"{path}: cannot be read: {error}. delete {path.parent} to go on from the one before."
        ) from None


def check_tensors(path: Path, tensors: Mapping[str, torch.Tensor], index: Metadata) -> None:
    """Refuses a checkpoint whose tensors are not those of the model, naming the first."""
    saved = {
        name: list(entry.size)
        for name, entry in index.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata) and not name.startswith("random.")
    }
    wanted = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(saved.keys() | wanted.keys()):
        there, here = saved.get(name, "missing"), wanted.get(name, "missing")
        if there != here:
            raise SparseBalanceError(
                f"{path}: {name} = {there} there, {here} here: a checkpoint of another model. "
                "restore model.* in the configuration, or delete the folder to start anew."
            )


def first_failure(error: CheckpointException) -> str:
    """Returns the first rank's failure in one line."""
    rank, (failure, _) = min(error.failures.items())
    lines = str(failure).strip().splitlines() or [""]
    return f"rank {rank}: {type(failure).__name__}: {lines[0]}"
