"""Which code a stage runs: a digest of its sources, so that editing them reruns the stage.

Snakemake sees the command of a `shell:` rule, not the modules behind it. They are followed from
the stage's own module by every mention of one of ours, in imports and in tables of lazy names, so
an edit in the report reruns the report alone. What only carries values (config), checks them
(beforehand), shows them (tracking) or calls stages (cli) is left out, since it changes no result.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_MENTION = re.compile(r"\b(?:sbcore|sbkernels)(?:\.\w+)*")
_FROM = re.compile(
    r"^\s*from (?P<package>(?:sbcore|sbkernels)[\w.]*) import \(?(?P<names>[\w\s,]+)", re.M
)
_NO_RESULT = tuple(
    f"sbcore.{name}" for name in ("config", "beforehand", "tracking", "cli", "workflow", "errors")
)


def code_digest(module: str) -> str:
    """Returns a digest of the module and of all of ours that it leads to."""
    sha = hashlib.sha256()
    for name in sorted(reachable(module)):
        for file in _files(name):
            sha.update(file.name.encode() + b"\0" + file.read_bytes())
    return sha.hexdigest()[:16]


def reachable(module: str) -> set[str]:
    """Returns the module and those of ours that it mentions, directly or not."""
    found: set[str] = set()
    ahead = {module}
    while ahead:
        name = ahead.pop()
        found.add(name)
        ahead |= _mentions(name) - found
    return found


@cache
def _mentions(module: str) -> frozenset[str]:
    found: set[str] = set()
    for file in _files(module):
        if file.suffix == ".py":
            text = file.read_text(encoding="utf-8")
            for name in (*_MENTION.findall(text), *_imported_names(text)):
                found |= _modules_of(name)
    return frozenset(name for name in found if not name.startswith(_NO_RESULT))


def _imported_names(text: str) -> Iterator[str]:
    """Yields `package.name` for each name of a from-import, which may be a module itself."""
    for match in _FROM.finditer(text):
        for name in re.split(r"[\s,]+", match["names"]):
            if name:
                yield f"{match['package']}.{name}"


def _modules_of(name: str) -> set[str]:
    """Returns the modules that importing a dotted name runs: itself and the packages above it."""
    parts = name.split(".")
    prefixes = (".".join(parts[: i + 1]) for i in range(len(parts)))
    return {prefix for prefix in prefixes if _source(prefix) is not None}


@cache
def _source(module: str) -> Path | None:
    """Returns a module's file, None for a name that is no module."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    assert spec is not None, f"{top} is not installed"
    assert spec.origin is not None, spec
    path = Path(spec.origin).parent.joinpath(*rest)
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


@cache
def _files(module: str) -> tuple[Path, ...]:
    """Returns a module's file; of a package also its data, such as templates."""
    source = _source(module)
    if source is None:
        return ()
    if source.name != "__init__.py":
        return (source,)
    folders = [f for f in source.parent.iterdir() if f.is_dir() and f.name != "__pycache__"]
    data = [f for f in folders if not (f / "__init__.py").exists()]
    return (
        source,
        *sorted(file for folder in data for file in folder.rglob("*") if file.is_file()),
    )
