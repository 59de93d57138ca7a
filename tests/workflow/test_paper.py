"""The paper's experiment as far as it goes without its files: every command of its head, dry."""

import json
import re
import shlex
from pathlib import Path

import pytest
from fake_pipeline import Pipeline, jobs_in

from sbcore.config.load import load_config

pytestmark = pytest.mark.workflow

ONCE = ("prepare_data", "profile_lengths", "profile_latency", "write_report", "close_run")
EACH = ("plan_variant", "train_variant", "evaluate_variant")
CONFIG = Path("config/paper.yaml")
TRAINER = "-m sbcore.train"


def commands(text: str) -> list[list[str]]:
    """Returns the words for snakemake of each ``make run`` in the file's head, then the cluster's.

    Without the cluster's profile: nothing is submitted, and its plugin need not be installed.
    """
    joined = re.sub(r" \\\n#\s*", " ", text)
    words = [shlex.split(line) for line in re.findall(r"^#   (make run .*)", joined, re.MULTILINE)]
    cluster = re.findall(r"^#   snakemake .* (--config .*)", joined, re.MULTILINE)
    return [
        [more for word in made if word.startswith("ARGS=") for more in shlex.split(word[5:])]
        for made in words
    ] + [shlex.split(line) for line in cluster]


def stand_in(folder: Path, tasks: list[str]) -> None:
    """Puts something where the files that are not ours to ship are looked for."""
    model, benchmark = folder / "models/Qwen2.5-3B", folder / "data/LongBench"
    for place in (model, benchmark / "config", benchmark / "data"):
        place.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    for name in ("ChatQA2-Long-SFT", "LongAlign-10k"):
        (folder / f"data/{name}.jsonl").write_text("{}\n")
    (benchmark / "config/dataset2prompt.json").write_text(json.dumps(dict.fromkeys(tasks, "")))
    for task in tasks:
        (benchmark / f"data/{task}.jsonl").write_text("{}\n")


def test_every_command_of_the_papers_configuration_is_planned(
    pipeline: Pipeline, repository: Path
) -> None:
    config = load_config(repository / CONFIG)
    stand_in(pipeline.folder, config.evaluate.tasks)
    asked = commands((repository / CONFIG).read_text())
    started = [f"torchrun --standalone --nproc-per-node 8 {TRAINER}"] * 3 + [
        f"srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=1 "
        f"python {TRAINER}.node"
    ]
    for words, start in zip(asked, started, strict=True):
        done = pipeline.call("-n", "-p", "--configfile", str(CONFIG), *words)
        assert done.returncode == 0, done.stdout + done.stderr
        each = {f"{rule}/{variant}": 1 for rule in EACH for variant in config.variants}
        assert jobs_in(done.stdout + done.stderr) == dict.fromkeys(ONCE, 1) | each
        assert done.stdout.count(f"{start} $words") == len(config.variants)
        scored = "torchrun --standalone --nproc-per-node 8 -m sbcore.cli evaluate"
        assert done.stdout.count(scored) == len(config.variants), "on one node"
        assert "--model models/Qwen2.5-3B" in done.stdout
