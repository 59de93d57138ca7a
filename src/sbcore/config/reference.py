"""The reference page of all keys, made from the schema."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sbcore.config.schema import Config


def reference_page() -> str:
    """Returns the reference of all keys in Markdown."""
    sections = "\n".join(_section_lines(Config, ""))
    return (
        "# Configuration\n\n"
        "Generated from `src/sbcore/config` by `make config`. Unknown keys are errors.\n\n"
        f"{sections}"
    )


def _section_lines(section: type[BaseModel], path: str) -> Iterator[str]:
    yield f"## `{path or 'top level'}`\n\n{_sentence(section)}\n"
    yield "| key | type | default | meaning |\n| --- | --- | --- | --- |"
    for name, field in section.model_fields.items():
        meaning = " ".join((field.description or "").split())
        yield f"| `{name}` | {_type(section, name)} | {_default(field)} | {meaning} |"
    yield ""
    for name, field in section.model_fields.items():
        for inner, suffix in _inner_sections(field.annotation):
            yield from _section_lines(inner, f"{path}.{name}{suffix}".lstrip("."))


def _sentence(section: type[BaseModel]) -> str:
    return " ".join((section.__doc__ or "").split())


def _inner_sections(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """Yields the sections in an annotation, and how their path goes on."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        kind = annotation.model_fields.get("kind")
        yield annotation, f" (kind: {kind.default})" if kind else ""
        return
    is_mapping = getattr(annotation, "__origin__", None) is dict
    for member in getattr(annotation, "__args__", ()):
        for inner, suffix in _inner_sections(member):
            yield inner, f".NAME{suffix}" if is_mapping else suffix


def _type(section: type[BaseModel], name: str) -> str:
    """Returns a field's type and bounds in words, read from the JSON schema."""
    schema = section.model_json_schema()
    field = schema["properties"][name]
    named = str(field.get("$ref", "")).removeprefix("#/$defs/")
    return _words(schema["$defs"][named] if named else field)


def _words(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "properties" in schema or "discriminator" in schema:
        return "section"
    if "anyOf" in schema:
        return " or ".join(_words(member) for member in schema["anyOf"])
    kind = str(schema.get("type", "section"))
    if kind == "array" and "items" in schema:
        return f"list of {_words(schema['items'])}"
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in bounds.items() if key in schema]
    return " ".join([kind, *limits])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel | dict):
        return "see below"
    return f"`{json.dumps(value)}`"
