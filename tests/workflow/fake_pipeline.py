"""A workflow whose stages are fakes, in a folder of its own: which jobs run, and when."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import yaml
from forked import run_forked_in

Jobs = dict[str, int]


class Pipeline:
    """Calls snakemake in a folder of its own that holds a copy of the checkout's sources."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tools = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent)])
        self.environment = os.environ | {
            "PATH": os.pathsep.join([tools, os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder / "kernels")]),
        }

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs snakemake with these words."""
        return self.run("--cores", "2", "--scheduler", "greedy", *words)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs snakemake with these words and no others."""
        words = ["-m", "snakemake", *words]
        return run_forked_in(self.folder, words, environment=self.environment, timeout=200)

    def jobs(self, *words: str) -> Jobs:
        """Runs snakemake; returns the jobs it started, `rule` or `rule/variant`, with counts."""
        done = self.call(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return jobs_in(done.stdout + done.stderr)

    def edit(self, change: Callable[[dict], None]) -> None:
        """Rewrites the demo's configuration."""
        path = self.folder / "config" / "demo.yaml"
        values = yaml.safe_load(path.read_text())
        change(values)
        path.write_text(yaml.safe_dump(values))

    def place(self, topology: dict[str, object]) -> None:
        """Puts the demo onto other ranks; in blocks that a GPU's kernels take, too."""

        def change(values: dict) -> None:
            values["topology"].update(topology)
            values["attention"]["block_size"] = 64

        self.edit(change)


def copy_checkout(checkout: Path, folder: Path) -> Pipeline:
    """Returns a pipeline that has not run: the checkout's workflow with fakes for its stages."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("workflow", "profiles", "config", "src", "kernels"):
        shutil.copytree(checkout / name, folder / name, ignore=ignored)
    shutil.copy(checkout / "Snakefile", folder)
    (folder / "bin").mkdir()
    fake = Path(__file__).with_name("fake_stages.py")
    for name in ("sb", "torchrun", "python"):
        tool = folder / "bin" / name
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{fake}" "$@"\n')
        tool.chmod(0o755)
    return Pipeline(folder)


def jobs_in(text: str) -> Jobs:
    """Returns the jobs that snakemake's output tells of, without the target rules."""
    found: Counter[str] = Counter()
    for block in re.split(r"\n(?=(?:local)?rule )", "\n" + text)[1:]:
        rule = re.match(r"(?:local)?rule (\w+)", block).group(1)
        variant = re.search(r"wildcards: variant=(\w+)", block)
        found[f"{rule}/{variant.group(1)}" if variant else rule] += 1
    return {job: count for job, count in found.items() if job not in ("all", "default")}
