"""What is generated from the schema is in step with it, and every key has a reader."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from sbcore.config.export import check_exports, write_exports
from sbcore.config.load import load_config
from sbcore.config.schema import Config
from sbcore.errors import ConfigError


def test_generated_files_are_in_step(repository: Path) -> None:
    check_exports(repository)


def test_a_stale_file_is_shown_with_a_diff_and_the_command(tmp_path: Path) -> None:
    write_exports(tmp_path)
    path = tmp_path / "config" / "default.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(ConfigError) as caught:
        check_exports(tmp_path)
    assert "-seed: 1\n+seed: 0" in str(caught.value)
    assert str(caught.value).endswith("config/default.yaml: out of step. run: make config")


def test_default_yaml_is_the_default(repository: Path) -> None:
    assert load_config(repository / "config" / "default.yaml") == Config()


@pytest.mark.parametrize("name", ["demo", "smoke", "paper", "default"])
def test_shipped_configurations_fit_the_published_schema(repository: Path, name: str) -> None:
    from snakemake.utils import validate

    file = repository / "config" / f"{name}.yaml"
    load_config(file)
    values = yaml.safe_load(file.read_text())
    before = json.dumps(values)
    validate(values, str(repository / "config" / "schema.json"), set_default=False)
    assert json.dumps(values) == before


def test_every_key_is_read_by_the_code(repository: Path) -> None:
    readers = "\n".join(
        file.read_text()
        for folder in ("src", "workflow")
        for file in (repository / folder).rglob("*")
        if file.suffix in (".py", ".smk") and file.parent.name != "config"
    )
    stages = (repository / "src" / "sbcore" / "config" / "stages.py").read_text()
    unread = [
        f"{section.__name__}.{key}"
        for section, key in set(keys(Config))
        if not re.search(rf"\.{key}\b", readers) and not re.search(rf"{key}=config\.", stages)
    ]
    assert sorted(unread) == []


def keys(section: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str]]:
    for name, field in section.model_fields.items():
        yield section, name
        for inner in sections(field.annotation):
            yield from keys(inner)


def sections(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for member in getattr(annotation, "__args__", ()):
        yield from sections(member)
