"""Where a configuration's values stand: the lines of its yaml files, and keys written twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sbcore.errors import ConfigError

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class SourceFile:
    """A yaml file that values were read from."""

    path: Path
    lines: dict[Keys, int]
    scalars: dict[Keys, Any]

    def holds_another(self, keys: Keys, value: object) -> bool:
        """Returns whether this file's own value was replaced, as by --config on the way."""
        written = self.scalars.get(keys, value)
        return written != value and repr(written) != repr(value)  # .nan is not equal to itself


def read_source(path: Path) -> SourceFile:
    """Returns the lines and the plain values of every key; raises ConfigError for twins.

    yaml itself takes the last of two equal keys, so a whole section would be lost without a word.
    """
    lines: dict[Keys, int] = {}
    scalars: dict[Keys, Any] = {}
    twins: list[str] = []
    loader = yaml.SafeLoader("")

    def walk(node: yaml.Node | None, at: Keys) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                keys, line = (*at, key.value), key.start_mark.line + 1
                if keys in lines:
                    name = ".".join(map(str, keys))
                    twins.append(f"{path}:{line}: {name}: also in line {lines[keys]}. keep one.")
                lines[keys] = line
                walk(value, keys)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[(*at, index)] = value.start_mark.line + 1
                walk(value, (*at, index))
        elif isinstance(node, yaml.ScalarNode):
            scalars[at] = loader.construct_object(node)

    walk(yaml.compose(path.read_text(encoding="utf-8")), ())
    if twins:
        raise ConfigError("\n".join(twins))
    return SourceFile(path, lines, scalars)


def place_of(keys: Keys, value: object, files: Sequence[SourceFile]) -> str:
    """Returns file:line of a key or of what holds it, or that it comes from the command line."""
    for file in files:
        for depth in range(len(keys), 0, -1):
            if keys[:depth] in file.lines and depth >= len(keys) - 1:
                if file.holds_another(keys, value):
                    return "from the command line"
                return f"{file.path}:{file.lines[keys[:depth]]}"
    return "from the command line" if keys and files else "configuration"
