"""Shipped configurations, and those that pages show, run wherever somebody types their command."""

import re
from pathlib import Path

import pytest
import yaml

from sbcore.beforehand.check import check_beforehand
from sbcore.beforehand.foreseen import TRITON_BLOCK_SIZES, foreseen, may_take_triton
from sbcore.config.load import load_config
from sbcore.config.schema import Config

ROOT = Path(__file__).parents[3]
GENERATED = "config/default.yaml"  # lists keys and is no run
OF_OTHERS = ("paper",)  # files that are not ours to ship


def shipped() -> list[str]:
    """Every file whose head names our schema."""
    folders = [ROOT / name for name in ("config", "docs", "examples")]
    files = [file for folder in folders for file in folder.rglob("*.yaml")]
    named = [file for file in files if "schema.json" in file.read_text().split("\n")[0]]
    return sorted(str(file.relative_to(ROOT)) for file in named)


def shown() -> list[tuple[str, str]]:
    """Every piece of a configuration on a page that decides on attention, with its page."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [
        (str(page.relative_to(ROOT)), block)
        for page in pages
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    return [
        (page, block) for page, block in blocks if re.search("^attention:", block, re.MULTILINE)
    ]


def reaches_triton_with_other_blocks(config: Config) -> bool:
    return may_take_triton(config) and config.attention.block_size not in TRITON_BLOCK_SIZES


def test_all_shipped_ones_are_found() -> None:
    found = {Path(name).stem for name in shipped()}
    assert found >= {"demo", "smoke", "paper", "h100", "h100-3b", "h100x8", "smollm2", "qwen2.5-3b"}


@pytest.mark.parametrize("name", [name for name in shipped() if name != GENERATED])
def test_none_reaches_a_gpu_with_blocks_that_its_backend_does_not_take(name: str) -> None:
    assert not reaches_triton_with_other_blocks(load_config(ROOT / name))


def test_the_defaults_would() -> None:
    assert reaches_triton_with_other_blocks(Config())


@pytest.mark.parametrize("name", shipped())
def test_nothing_wrong_is_foreseen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.chdir(ROOT)  # paths start there
    config = load_config(ROOT / name)
    assert list(foreseen(config)) == []
    if Path(name).stem not in OF_OTHERS:
        check_beforehand(config, [ROOT / name])


@pytest.mark.parametrize(("page", "block"), shown())
def test_what_pages_show_reaches_none_either(page: str, block: str) -> None:
    config = Config.model_validate(yaml.safe_load(block))
    assert not reaches_triton_with_other_blocks(config), page
