"""A comparison as small as it gets: configuration, lengths and a made-up latency table."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml

from sbcore.device import device_name
from sbcore.latency.table import HEADER, TABLE, MeasuredPoint, write_points

BLOCK_SIZE, NUM_LAYERS = 16, 2


@dataclass(frozen=True)
class TinyComparison:
    """Where its inputs lie."""

    folder: Path

    def with_variants_of(self, path: Path) -> Path:
        """Returns a configuration of this size with all else of another one, of GPUs maybe."""
        ours = yaml.safe_load((self.folder / "tiny.yaml").read_text())
        values = yaml.safe_load(path.read_text())
        values["attention"] = ours["attention"]
        values["data"] |= ours["data"]
        values["model"] = ours["model"]
        values["topology"] |= ours["topology"]
        values["train"] |= ours["train"]
        for table in ("demo", "latency"):  # read by other stages, and of long sequences
            values.pop(table)
        changed = self.folder / path.name
        changed.write_text(yaml.safe_dump(values, sort_keys=False))
        return changed

    def words(self, out: Path, **changed: object) -> list[str]:
        """Returns the words after ``-m sbcore.ablation``."""
        words = {
            "config": self.folder / "tiny.yaml",
            "latency": self.folder / "latency",
            "lengths": self.folder / "some.csv",
            "out": out,
            "barriers": "micro",
            "global-batches": 8,
            "rounds": 2,
            "seconds": 100,
        }
        pairs = words | {name.replace("_", "-"): value for name, value in changed.items()}
        return [
            word for name, value in pairs.items() for word in (f"--{name}", *str(value).split())
        ]


def make_tiny_comparison(folder: Path) -> TinyComparison:
    """Returns a comparison of two layers and lengths up to 256."""
    sab = {"kind": "sab", "online": True}
    values = {
        "attention": {"block_size": BLOCK_SIZE, "top_k": 4},
        "data": {"max_sample_tokens": 256},
        "model": {"shape": {"hidden_size": 32, "intermediate_size": 48, "vocab_size": 61}},
        "topology": {"max_tokens": 256, "device": "cpu"},
        "train": {"warmup_steps_unmeasured": 1, "coverage_every_steps": 2},
        "variants": {
            "baseline": {"max_sequences": 1},
            "dense": {"attention": "dense", "balancer": {"kind": "length"}},
            "sab_dst": {"balancer": sab, "tuner": {"kind": "anchor", "p": 0.3}},
            "sab_waterfill": {"balancer": sab, "tuner": {"kind": "waterfill", "p": 0.3}},
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    lengths = np.random.default_rng(5).lognormal(4.2, 0.8, 96).clip(16, 400).astype(int)
    (folder / "some.csv").write_text("num_tokens\n" + "".join(f"{n}\n" for n in lengths))
    _write_latency(folder / "latency")
    return TinyComparison(folder)


def _write_latency(folder: Path) -> None:
    """Writes a table of made-up times for this device."""
    folder.mkdir(parents=True)
    rows = [("floor", BLOCK_SIZE, 1, 1), ("linear", 64, 0, 1), ("linear", 512, 0, 1)]
    for length in (64, 128, 256, 512):
        budgets = {k for k in (1, 4, 8, 16) if k * BLOCK_SIZE < length} | {length // BLOCK_SIZE}
        rows += [("attention", length, k, 1) for k in sorted(budgets)]
    rows.append(("attention", 64, 4, 4))
    points = []
    for part, length, top_k, num_sequences in rows:
        ms = 0.5 + 0.002 * num_sequences * length * (1 + 0.2 * top_k)
        facts = {"median_ms": ms, "p20_ms": ms, "p80_ms": ms, "n": 3, "held_out": False}
        points.append(
            MeasuredPoint(
                part=part, length=length, top_k=top_k, num_sequences=num_sequences, **facts
            )
        )
    write_points(folder / TABLE, points)
    head = {
        "device": device_name(torch.device("cpu")),
        "device_type": "cpu",
        "block_size": BLOCK_SIZE,
        "num_layers": NUM_LAYERS,
    }
    (folder / HEADER).write_text(json.dumps(head))
