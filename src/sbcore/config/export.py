"""Generates from the schema what is written about it: default.yaml, schema.json, the reference.

`make config` writes them, a test and `make check` compare them with the schema.
"""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from sbcore.artifacts import write_text
from sbcore.config.reference import reference_page
from sbcore.config.schema import Config
from sbcore.errors import ConfigError

_DEFAULT, _SCHEMA, _REFERENCE = (
    "config/default.yaml",
    "config/schema.json",
    "docs/reference/config.md",
)
_COMMAND = "make config"
_DOCUMENT_END = "\n..."  # yaml ends a bare word with it


def exports() -> dict[str, str]:
    """Returns the generated files' contents by path below the checkout."""
    return {_DEFAULT: default_yaml(), _SCHEMA: schema_json(), _REFERENCE: reference_page()}


def write_exports(root: Path) -> list[Path]:
    """Writes the generated files; returns their paths."""
    for name, text in exports().items():
        write_text(root / name, text)
    return [root / name for name in exports()]


def check_exports(root: Path) -> None:
    """Raises ConfigError with a diff and the command if a generated file is out of step."""
    for name, text in exports().items():
        path = root / name
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if found != text:
            diff = difflib.unified_diff(
                found.splitlines(), text.splitlines(), name, "from the schema", lineterm="", n=1
            )
            raise ConfigError("\n".join([*diff, f"{name}: out of step. run: {_COMMAND}"]))


def default_yaml() -> str:
    """Returns every key with its default, each under its description."""
    head = (
        f"# Every key with its default. Generated from src/sbcore/config by `{_COMMAND}`;\n"
        "# copy the keys you change into a file of your own, or start from demo.yaml.\n"
        "# yaml-language-server: $schema=schema.json\n"
    )
    return head + "\n".join(_yaml_lines(Config(), Config().model_dump(mode="json"), "")) + "\n"


def schema_json() -> str:
    """Returns the JSON schema that editors and `snakemake.utils.validate` read."""
    schema = Config.model_json_schema()
    # Without this key Snakemake's validation refuses the schema.
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | schema, indent=2) + "\n"


def _yaml_lines(section: BaseModel, values: dict[str, Any], indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        for line in (field.description or "").splitlines():
            yield f"{indent}# {line.strip()}"
        yield from _yaml_entry(name, getattr(section, name), values[name], indent)


def _yaml_entry(name: str, entry: object, value: Any, indent: str) -> Iterator[str]:
    """Yields a key; ``value`` is the entry as json writes it."""
    if isinstance(entry, BaseModel):
        yield f"{indent}{name}:"
        yield from _yaml_lines(entry, value, indent + "  ")
    elif isinstance(entry, dict) and entry:
        yield f"{indent}{name}:"
        for key, inner in entry.items():
            yield from _yaml_entry(key, inner, value[key], indent + "  ")
    else:
        text = yaml.safe_dump(value, default_flow_style=True, width=1000)
        yield f"{indent}{name}: {text.split(_DOCUMENT_END)[0].strip()}"
