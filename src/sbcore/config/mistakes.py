"""Turns pydantic's errors into lines that name the file, the line, the key and the remedy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from sbcore.config.schema import Config

Keys = tuple[str | int, ...]

_UNIONS = ("balancer", "tuner")
"""Keys whose section depends on its kind: pydantic puts the kind into the location after them."""


@dataclass(frozen=True)
class SourceFile:
    """A yaml file that values were read from."""

    path: Path
    lines: dict[Keys, int]
    scalars: dict[Keys, Any]

    def holds_another(self, keys: Keys, value: object) -> bool:
        """Returns whether this file's own value was replaced, as by --config on the way."""
        return keys in self.scalars and self.scalars[keys] != value


def read_source(path: Path) -> SourceFile:
    """Returns the lines and the plain values of every key in a yaml file."""
    lines: dict[Keys, int] = {}
    scalars: dict[Keys, Any] = {}

    def walk(node: yaml.Node | None, at: Keys) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                lines[(*at, key.value)] = key.start_mark.line + 1
                walk(value, (*at, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[(*at, index)] = value.start_mark.line + 1
                walk(value, (*at, index))
        elif isinstance(node, yaml.ScalarNode):
            scalars[at] = yaml.safe_load(yaml.serialize(node))

    walk(yaml.compose(path.read_text(encoding="utf-8")), ())
    return SourceFile(path, lines, scalars)


def describe_error(details: Mapping[str, Any], files: Sequence[SourceFile]) -> str:
    """Returns one line: place: key = value: what is wrong. what to do."""
    loc, keys = details["loc"], _real_keys(details["loc"])
    key = ".".join(str(part) for part in keys)
    place = _place(keys, details["input"], files)
    if details["type"] == "extra_forbidden":
        return f"{place}: {key}: unknown key. {_known_keys(loc)}"
    if details["type"] == "value_error":
        sentence = str(details["ctx"]["error"])
        return f"{place}: {f'{key}: ' if key else ''}{sentence}."
    if details["type"] == "union_tag_invalid":
        ctx = details["ctx"]
        return f"{place}: {key}.kind = {ctx['tag']}: unknown. use one of {ctx['expected_tags']}."
    problem = details["msg"].removeprefix("Input ")
    return f"{place}: {key} = {details['input']!r}: {problem}. {_default(loc)}"


def _place(keys: Keys, value: object, files: Sequence[SourceFile]) -> str:
    for file in files:
        for depth in range(len(keys), 0, -1):
            if keys[:depth] in file.lines and depth >= len(keys) - 1:
                if file.holds_another(keys, value):
                    return "from the command line"
                return f"{file.path}:{file.lines[keys[:depth]]}"
    return "from the command line" if keys and files else "configuration"


def _real_keys(loc: Keys) -> Keys:
    """Returns the location without the kinds that pydantic puts after a union's key."""
    return tuple(part for i, part in enumerate(loc) if i == 0 or loc[i - 1] not in _UNIONS)


def _step(model: Any, part: str | int) -> Any:
    """Returns the annotation one key deeper, or None where the schema has no such key."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        field = model.model_fields.get(str(part))
        return field.annotation if field else None
    if getattr(model, "__origin__", None) is dict:
        return model.__args__[1]
    if getattr(model, "__origin__", None) is list:
        return model.__args__[0]
    for member in getattr(model, "__args__", ()):
        if isinstance(member, type) and issubclass(member, BaseModel):
            kind = member.model_fields.get("kind")
            if kind is not None and kind.default == part:
                return member
    return None


def _known_keys(loc: Keys) -> str:
    model: Any = Config
    for part in loc[:-1]:
        model = _step(model, part)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return "remove it."
    names = sorted(model.model_fields)
    near = get_close_matches(str(loc[-1]), names, n=1)
    return (f"did you mean '{near[0]}'? " if near else "") + f"known: {', '.join(names)}."


def _default(loc: Keys) -> str:
    model: Any = Config
    for part in loc[:-1]:
        model = _step(model, part)
    if isinstance(model, type) and issubclass(model, BaseModel) and loc:
        field = model.model_fields.get(str(loc[-1]))
        if field is not None and not field.is_required():
            default = field.get_default()
            if not isinstance(default, BaseModel | dict):
                return f"the default is {default!r}."
    return "correct it."
