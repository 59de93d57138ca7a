"""What pages claim: links lead somewhere, verbs exist, configurations are valid, code runs."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

import sbcore
from sbcore.config.load import parse_config
from sbcore.config.section import Section
from sbcore.plan.balancers import BALANCERS
from sbcore.plan.balancers.random import random_layout
from sbcore.plan.cost import TokenCost
from sbcore.types import Barrier, Topology

TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "config/README.md", "results/README.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def pages(repository: Path) -> list[Path]:
    return [*(repository / name for name in TOP), *sorted((repository / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_relative_links_lead_to_a_file_and_a_heading(repository: Path) -> None:
    broken = []
    for page in pages(repository):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M) if anchor else []
            if not target.exists() or (anchor and anchor not in map(slug, headings)):
                broken.append(f"{page.relative_to(repository)}: {link}")
    assert broken == []


def test_pages_that_code_points_to_exist(repository: Path) -> None:
    sources = [
        file
        for folder in ("src", "kernels", "workflow", "profiles", ".ci", "config")
        for file in (repository / folder).rglob("*")
        if file.is_file() and file.suffix in (".py", ".smk", ".yaml", ".yml", ".j2")
    ]
    named = {
        (name, file.name)
        for file in [*sources, repository / "Snakefile", repository / "Makefile"]
        for name in re.findall(r"docs/[\w/-]+\.md", file.read_text())
    }
    assert named
    assert [pair for pair in named if not (repository / pair[0]).exists()] == []


def test_every_page_can_be_reached_from_the_index(repository: Path) -> None:
    index = (repository / "docs" / "index.md").read_text()
    docs = repository / "docs"
    missing = [
        str(page.relative_to(docs))
        for page in docs.rglob("*.md")
        if page.name != "index.md" and f"({page.relative_to(docs)})" not in index
    ]
    assert missing == []


def test_verbs_of_make_exist(repository: Path) -> None:
    makefile = (repository / "Makefile").read_text()
    verbs = set(re.findall(r"^([a-z]+):", makefile, re.M))
    for page in pages(repository):
        for block in blocks(page, "sh"):
            for verb in re.findall(r"^make ([a-z]+)", block, re.M):
                assert verb in verbs, f"{page.name}: make {verb}"
    assert verbs <= set(re.search(r"\.PHONY: (.*)", makefile).group(1).split())


def test_a_path_in_args_is_a_target_and_no_configuration(repository: Path) -> None:
    # --configfile takes every word up to the next option: another one has to stand behind its file.
    calls = re.findall(r"^\tsnakemake (.*)$", (repository / "Makefile").read_text(), re.M)
    assert len(calls) == 2
    assert all(call.startswith("--configfile $(CONFIG) --cores ") for call in calls)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "sb config where config/demo.yaml"),
        (
            "--config run=mine_lora 'model={lora: {rank: 32}}'",
            "/results/mine_lora/report/index.html",
        ),
    ],
)
def test_the_report_named_is_that_of_the_run(repository: Path, more: str, said: str) -> None:
    words = ["make", "--dry-run", "--no-print-directory", "-o", ".venv/.installed", "run"]
    words.append(f"ARGS={more}")
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True, check=True)
    assert said in done.stdout.splitlines()[-1]


def test_what_a_run_imports_is_compiled_once_even_where_images_forbid_it(repository: Path) -> None:
    words = ["make", "--no-print-directory", "--eval", "said:; @env", "said"]
    forbidden = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        words, cwd=repository, env=forbidden, capture_output=True, text=True, check=True
    )
    assert "PYTHONUNBUFFERED=1" in done.stdout.splitlines()
    assert "PYTHONDONTWRITEBYTECODE" not in done.stdout


def test_the_newest_change_is_of_this_version(repository: Path) -> None:
    newest = re.search(r"^## \[(.*?)\]", (repository / "CHANGELOG.md").read_text(), re.M).group(1)
    assert newest in (sbcore.__version__, "Unreleased")


@pytest.mark.parametrize(
    "name", ["README.md", "docs/how-to/own-data.md", "docs/how-to/multi-gpu.md"]
)
def test_configurations_in_pages_are_valid(repository: Path, name: str) -> None:
    found = blocks(repository / name, "yaml")
    assert found
    for text in found:
        values = yaml.safe_load(text)
        if "variants" not in values:
            values["variants"] = {"baseline": {}}
        parse_config(values, [])


def test_the_balancer_of_the_guide_keeps_the_contract(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = blocks(repository / "docs" / "how-to" / "add-a-balancer.md", "python")
    space: dict = {}
    monkeypatch.setattr("sbcore.config.method.ZigzagBalancer", Section, raising=False)
    exec(compile(code, "add-a-balancer.md", "exec"), space)
    lengths = np.random.default_rng(0).integers(1, 900, 24)
    for barrier in Barrier:
        topology = Topology(3, barrier, 1000, 0)
        plan = space["plan"](lengths, topology, cost=TokenCost(), seed=0, config=Section())
        packs = [pack for rank in plan.micro_batches for pack in rank]
        assert sorted(i for pack in packs for i in pack) == list(range(24))
        assert len({len(rank) for rank in plan.micro_batches}) == 1
        assert all(sum(lengths[list(pack)]) <= 1000 for pack in packs)
        assert plan.micro_batches != random_layout(lengths.tolist(), topology, seed=0)
    assert "zigzag" not in BALANCERS, "the guide's example became real: choose another"


def test_the_policy_of_the_guide_halves(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    (code,) = blocks(repository / "docs" / "how-to" / "add-a-policy.md", "python")
    space: dict = {}
    monkeypatch.setattr("sbcore.config.method.HalvingTuner", Section, raising=False)
    exec(compile(code, "add-a-policy.md", "exec"), space)
    seen = SimpleNamespace(latency=SimpleNamespace(num_layers=3), lengths=np.array([5, 9]), top_k=8)
    targets = space["HalvingPolicy"](SimpleNamespace(floor=1)).decide(seen)
    assert targets.tolist() == [[8, 8], [4, 4], [4, 4]]
