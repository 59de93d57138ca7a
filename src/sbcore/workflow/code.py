"""Which code a stage runs: a digest of its packages' sources, so that edits rerun the stage.

Snakemake sees a `shell:` rule's command, not the package behind it. Packages are followed by their
import statements, lazy ones too: an edit in `report` reruns the report alone. What only carries
values (config) or shows them (tracking, cli) is left out, since it changes no result.
"""

import hashlib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_IMPORT = re.compile(r"^\s*(?:from|import)\s+(sbcore\.\w+|sbkernels)\b", re.MULTILINE)
_NO_RESULT = {"sbcore.config", "sbcore.tracking", "sbcore.cli", "sbcore.workflow", "sbcore.errors"}


def code_digest(package: str) -> str:
    """Returns a digest of the package's sources and of all of ours that it imports."""
    sha = hashlib.sha256()
    for name in sorted(reachable(package)):
        for file in _sources(name):
            sha.update(file.name.encode() + b"\0" + file.read_bytes())
    return sha.hexdigest()[:16]


def reachable(package: str) -> set[str]:
    """Returns the package and those of ours that it imports, directly or not."""
    found: set[str] = set()
    ahead = {package}
    while ahead:
        name = ahead.pop()
        found.add(name)
        ahead |= _imports(name) - found - _NO_RESULT
    return found


@cache
def _imports(package: str) -> frozenset[str]:
    texts = (file.read_text(encoding="utf-8") for file in _sources(package))
    return frozenset(name for text in texts for name in _IMPORT.findall(text))


@cache
def _sources(package: str) -> tuple[Path, ...]:
    """Returns a package's files in a fixed order; templates belong to the code."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return ()  # imported but absent: the stage itself fails on it, with a better message
    origin = Path(spec.origin)
    if origin.name != "__init__.py":
        return (origin,)
    files = (p for p in origin.parent.rglob("*") if p.is_file() and p.suffix != ".pyc")
    return tuple(sorted(files))
