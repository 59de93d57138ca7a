"""Refuses a configuration before anything starts, with all its mistakes in the file's order."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sbcore.beforehand.demo import demo_mistakes
from sbcore.beforehand.foreseen import foreseen
from sbcore.beforehand.mistake import Mistake
from sbcore.beforehand.paths import missing_paths, unnamed_paths
from sbcore.beforehand.tasks import unknown_tasks
from sbcore.config.schema import Config
from sbcore.config.source import Keys, SourceFile, place_of, read_source
from sbcore.errors import ConfigError


def check_beforehand(config: Config, files: Sequence[Path]) -> None:
    """Raises ConfigError with a line for every mistake that a stage would find, maybe after hours.

    Lines begin with their place in the files that the configuration was read from, and stand in
    that order.
    """
    sources = [read_source(file) for file in files]
    found = [(_place(each.keys, each.value, sources), each.line) for each in _mistakes(config)]
    if found:
        found.sort(key=lambda mistake: _order(mistake[0], sources))
        raise ConfigError("\n".join(dict.fromkeys(f"{place}: {line}" for place, line in found)))


def _mistakes(config: Config) -> Iterator[Mistake]:
    yield from missing_paths(config)
    yield from unnamed_paths(config)
    yield from foreseen(config)
    yield from demo_mistakes(config)
    yield from unknown_tasks(config)


def _place(keys: Keys, value: object, sources: Sequence[SourceFile]) -> str:
    """Returns the place of a value; the file where it is a default that nobody wrote."""
    written = any(
        keys[:depth] in file.lines for file in sources for depth in (len(keys) - 1, len(keys))
    )
    default: object = Config()
    for key in keys:
        default = getattr(default, str(key), None)
    if value == default and not written and sources:
        return str(sources[0].path)
    return place_of(keys, value, sources)


def _order(place: str, sources: Sequence[SourceFile]) -> tuple[int, int]:
    """Returns what places sort by: files, lines; what stands in no line comes last."""
    file, _, line = place.rpartition(":")
    names = [str(source.path) for source in sources]
    return (names.index(file), int(line)) if file in names else (len(names), 0)
