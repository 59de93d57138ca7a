"""Real text that every machine has: the sources of Python's standard library (PSF licence).

It differs between Python versions, so the version and a digest go into the demo's summary.
"""

import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LEFT_OUT = {
    "test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__",
    "encodings",  # tables of characters, hundreds of equal lines
}  # fmt: skip
_LONGEST_LINE = 120  # characters; longer ones are tables, not text
_EVALUATION_EVERY = 8  # of the files, one is kept for evaluation
_LARGEST_SHARE = 16  # a file is at most 1/16 of the corpus, else one text would rule it


@dataclass(frozen=True, slots=True)
class Corpus:
    """Files as lists of lines; ``digest`` is the sha256 of all of them.

    Lines end with a line feed, no blanks before it; those that are no plain ASCII are left out.
    """

    files: list[list[str]]
    digest: str
    python_version: str

    @property
    def training(self) -> list[list[str]]:
        """The files that training text is taken from."""
        return [file for i, file in enumerate(self.files) if i % _EVALUATION_EVERY != 0]

    @property
    def evaluation(self) -> list[list[str]]:
        """The files kept for evaluation."""
        return [file for i, file in enumerate(self.files) if i % _EVALUATION_EVERY == 0]

    @property
    def num_bytes(self) -> int:
        """Bytes of all lines."""
        return sum(len(line.encode()) for lines in self.files for line in lines)


def read_corpus(max_bytes: int) -> Corpus:
    """Returns whole source files, tests and tables left out, until max_bytes are reached.

    The order is that of the sha256 of their names: mixed, and the same on every machine.
    """
    root = Path(sysconfig.get_path("stdlib"))
    names = sorted(_sources(root), key=lambda name: hashlib.sha256(name.encode()).digest())
    files: list[list[str]] = []
    sha, num_bytes = hashlib.sha256(), 0
    for name in names:
        if num_bytes >= max_bytes:
            break
        text = (root / name).read_text(encoding="utf-8", errors="replace")
        lines = [line.rstrip() + "\n" for line in text.splitlines() if _is_usual(line)]
        content = "".join(lines).encode()
        if 0 < len(content) <= max_bytes // _LARGEST_SHARE:
            files.append(lines)
            sha.update(content)
            num_bytes += len(content)
    return Corpus(files, sha.hexdigest(), platform.python_version())


def _sources(root: Path) -> Iterator[str]:
    """Yields the names of the sources below root, with slashes."""
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in _LEFT_OUT]
        for name in names:
            if name.endswith(".py"):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _is_usual(line: str) -> bool:
    return line.isascii() and line.isprintable() and len(line) <= _LONGEST_LINE
