"""Turns pydantic's errors into lines that name the file, the line, the key and the remedy."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from sbcore.config.schema import Config
from sbcore.config.source import Keys, SourceFile, place_of

_UNIONS = ("balancer", "tuner")
"""Keys whose section depends on its kind: pydantic puts the kind into the location after them."""

_NAMED = re.compile(r"([a-z_.]+) = ")
"""How sentences of the schema's own begin: with a key of the section that they speak of."""

_PROBLEMS = {
    "string_pattern_mismatch": "letters, digits, - and _ only, the first a letter or a digit",
    "dict_type": "keys are needed here, not a value, a list or nothing",
    "model_type": "keys are needed here, not a value, a list or nothing",
}
"""Sentences for pydantic's that speak of patterns and types; names are the only pattern."""


def describe_error(details: Mapping[str, Any], files: Sequence[SourceFile]) -> str:
    """Returns one line: place: key = value: what is wrong. what to do."""
    loc, keys = details["loc"], _real_keys(details["loc"])
    key = ".".join(str(part) for part in keys)
    place = place_of(keys, details["input"], files)
    if details["type"] == "extra_forbidden":
        return f"{place}: {key}: unknown key. {_known_keys(loc)}"
    if details["type"] == "value_error" and not isinstance(details["input"], Mapping | BaseModel):
        return f"{place}: {key} = {details['input']!r}: {details['ctx']['error']}."
    if details["type"] == "value_error":
        return _sentence_of_section(str(details["ctx"]["error"]), keys, details["input"], files)
    if details["type"] == "union_tag_invalid":
        ctx = details["ctx"]
        return f"{place}: {key}.kind = {ctx['tag']}: unknown. use one of {ctx['expected_tags']}."
    if details["type"] == "union_tag_not_found":
        return f"{place}: {key}.kind: missing. use one of {_kinds(loc)}."
    problem = _PROBLEMS.get(details["type"], details["msg"].removeprefix("Input "))
    return f"{place}: {key} = {details['input']!r}: {problem}. {_default(loc)}"


def _sentence_of_section(
    sentence: str, section: Keys, values: Any, files: Sequence[SourceFile]
) -> str:
    """Returns the line of a sentence on a section's keys together: `key = value: ...`."""
    named = _NAMED.match(sentence)
    inner: Keys = tuple(named[1].split(".")) if named else ()
    value = values
    for key in inner:
        value = value.get(key) if isinstance(value, Mapping) else None
    name = ".".join(map(str, section)) + ("." if named else ": ")
    if value is None:  # a default, which stands nowhere
        inner, value = (), values
    if section or inner:
        place = place_of((*section, *inner), value, files)
    else:
        place = str(files[0].path) if len(files) == 1 else "configuration"
    return f"{place}: {name if section else ''}{sentence}."


def _real_keys(loc: Keys) -> Keys:
    """Returns the location without what pydantic adds: kinds after a union's key, marks of keys."""
    real = tuple(part for i, part in enumerate(loc) if i == 0 or loc[i - 1] not in _UNIONS)
    return real[:-1] if real[-1:] == ("[key]",) else real


def _step(model: Any, part: str | int) -> Any:
    """Returns the annotation one key deeper, or None where the schema has no such key."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        field = model.model_fields.get(str(part))
        return _section_of(field.annotation) if field else None
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


def _section_of(annotation: Any) -> Any:
    """Returns the section of one that may be null, any other annotation as it is."""
    members = getattr(annotation, "__args__", ())
    others = [member for member in members if member is not type(None)]
    is_one = len(others) == 1 < len(members) and isinstance(others[0], type)
    return others[0] if is_one and issubclass(others[0], BaseModel) else annotation


def _known_keys(loc: Keys) -> str:
    model: Any = Config
    for part in loc[:-1]:
        model = _step(model, part)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return "remove it."
    names = sorted(model.model_fields)
    near = get_close_matches(str(loc[-1]), names, n=1)
    return (f"did you mean '{near[0]}'? " if near else "") + f"known: {', '.join(names)}."


def _kinds(loc: Keys) -> str:
    model: Any = Config
    for part in loc:
        model = _step(model, part)
    return ", ".join(repr(member.model_fields["kind"].default) for member in model.__args__)


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
