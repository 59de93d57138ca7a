"""Folders that are there whole or not at all."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

from sbcore import artifacts


def replace_folder_when_done(folder: Path) -> AbstractContextManager[Path]:
    """Yields an empty folder beside this one; it takes its place only if the block succeeds."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    return artifacts.replace_folder_when_done(folder, part=part)
