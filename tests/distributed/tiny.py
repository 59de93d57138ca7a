"""A run as small as it gets, made by the real stages: data, latency, plans.

Ranks that measure latency are forks, too; tests/unit/latency starts them as the stage does.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
from forked import run_forked
from rich.progress import Progress

from sbcore.config.load import parse_config
from sbcore.config.schema import Config
from sbcore.config.stages import all_stages, plan_stage
from sbcore.data.encode import Encoded
from sbcore.data.write import open_store
from sbcore.latency.launch import StartedRanks
from sbcore.latency.measure import profile_latency
from sbcore.plan.planner import plan_variant

VOCAB, NUM_SAMPLES = 61, 48


@dataclass(frozen=True)
class TinyRun:
    """Where the inputs of a training lie."""

    folder: Path

    def words(self, variant: str, out: Path) -> list[str]:
        """Returns the words after ``-m sbcore.train``."""
        folder = self.folder
        words = {
            "--config": folder / f"config/train.{variant}.json",
            "--data": folder / "data",
            "--plan": folder / f"variants/{variant}/plan",
            "--latency": folder / "profile",
            "--out": out,
        }
        return [str(word) for pair in words.items() for word in pair]


def tiny_config(barrier: str) -> Config:
    """Returns a configuration of two ranks, two layers, eight steps."""
    shape = {"hidden_size": 32, "intermediate_size": 48}
    values = {
        "run": "tiny",
        "attention": {"block_size": 16, "top_k": 4},
        "model": {"shape": shape},
        "sampling": {"global_batch": 6},
        "topology": {"barrier": barrier, "max_tokens": 512, "device": "cpu"},
        "latency": {
            "lengths": [16, 64, 256, 512],
            "top_k": [1, 4, 16],
            "point_seconds": 0.001,
            "warmup_seconds": 0.0,
            "min_repeats": 2,
            "micro_batch_seconds": 0.5,
        },
        "train": {
            "warmup_steps_unmeasured": 1,
            "checkpoint_every_steps": 2,
            "coverage_every_steps": 2,
        },
        "variants": {
            "baseline": {"max_sequences": 1},
            "dense": {"attention": "dense", "balancer": {"kind": "length"}},
            "sab_dst": {"balancer": {"kind": "sab"}, "tuner": {"kind": "anchor", "p": 0.3}},
        },
    }
    return parse_config(values, [])


def make_tiny_run(folder: Path, *, barrier: str) -> TinyRun:
    """Returns a run whose inputs are made by the stages themselves."""
    config = tiny_config(barrier)
    _write_data(folder / "data")
    with (
        Progress(disable=True) as progress,
        patch("sbcore.latency.measure.started_ranks", _forked_ranks),
    ):
        profile_latency(
            dict(all_stages(config))["profile_latency"],
            model_dir=None,
            vocab_size=VOCAB,
            out=folder / "profile",
            progress=progress,
        )
    return _planned(folder, config)


@dataclass
class _ForkedRanks:
    """In place of torchrun's process: ranks that run when they are listened to."""

    words: list[str]
    num_ranks: int

    @property
    def stdout(self) -> Iterator[str]:
        done = run_forked(self.words, num_ranks=self.num_ranks, num_seeds=1, timeout=240)
        assert done.returncode == 0, done.stderr[-4000:]
        return iter(done.stdout.splitlines())

    def wait(self) -> int:
        return 0


@contextmanager
def _forked_ranks(num_ranks: int, *, threads: int) -> Iterator[StartedRanks]:
    """Takes the place of `started_ranks`, which starts them through torchrun."""
    assert threads == 1
    with TemporaryDirectory() as name:
        ranks = _ForkedRanks(["-m", "sbcore.latency.start", name], num_ranks)
        yield StartedRanks(Path(name), num_ranks, ranks)


def planned_anew(run: TinyRun, folder: Path, config: Config) -> TinyRun:
    """Returns a run on the same data and latency profile, planned as another configuration says."""
    for name in ("data", "profile"):
        shutil.copytree(run.folder / name, folder / name)
    return _planned(folder, config)


def _planned(folder: Path, config: Config) -> TinyRun:
    for name, stage in all_stages(config):
        path = folder / f"config/{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(stage.model_dump_json())
    for variant in config.variants:
        plan_variant(
            plan_stage(config, variant),
            index=folder / "data/index.parquet",
            latency=folder / "profile",
            out=folder / f"variants/{variant}/plan",
        )
    return TinyRun(folder)


def _write_data(folder: Path) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(5)
    with open_store(folder) as writer:
        for line in range(NUM_SAMPLES):
            size = int(np.clip(random.lognormal(4.6, 0.8), 16, 500))
            tokens = random.integers(0, VOCAB, size).astype(np.uint32)
            is_target = random.random(size) < 0.3
            is_target[0], is_target[-1] = False, True
            writer.append(Encoded(tokens, is_target), source_file="tiny", source_line=line + 1)
    facts = {"vocab_size": VOCAB, "max_sample_tokens": 512}
    (folder / "summary.json").write_text(json.dumps(facts))
