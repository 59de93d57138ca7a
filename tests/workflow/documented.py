"""Which keys and columns of a run's files the page of files does not name."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

SECTIONS = (
    (r"(.*/)?([a-z]+\.)?manifest\.json", "`manifest.json`, in every stage's folder"),
    (r"(demo|base)/.*", "`demo/` and `base/`"),
    (r"variants/\w+/eval/.*", "`variants/V/eval/`"),
    (
        r"variants/\w+/train/(.*/cursor|summary|start_weights)\.json",
        "`variants/V/train/`: the rest",
    ),
    (r"report/.*", "`report/`"),
    (r"(tracking|closed)\.json", "`tracking.json`, `closed.json`"),
)
"""Patterns of files and the section that names their keys; the others have one of their own."""

OTHERS_OWN = r"config/.*|base/(?!summary).*|demo/tokenizer/.*|demo/train\.jsonl|.*/model/.*"
"""Parts of the configuration, Hugging Face's files, a data set."""

NAMED_BY_DATA = {
    *("num_skipped", "share_below", "token_share_below", "packages", "inputs", "metrics"),
    *("scores", "averages", "buckets", "chance", "categories", "harness_names", "num_available"),
    *("num_examples", "num_truncated", "example_scores", "num_samples_by_task", "accuracy"),
    *("identity", "settings", "files"),
}
"""Keys whose values are keyed by tasks, lengths, packages, settings or files."""

BY_TASK = ("tasks.json", "state.json")
"""Files that are keyed by tasks."""


def undocumented(run_dir: Path, page: str) -> list[str]:
    """Returns `file: key` for all that the page's sections do not name."""
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    spans = {head: re.findall(r"`([^`]+)`", text) for head, text in sections.items()}
    names = {head: set(re.findall(r"\w+", " ".join(found))) for head, found in spans.items()}
    lacking = []
    for path in sorted(
        p for p in run_dir.rglob("*") if p.suffix in (".json", ".jsonl", ".parquet")
    ):
        file = str(path.relative_to(run_dir))
        if not re.fullmatch(OTHERS_OWN, file):
            lacking += [f"{file}: {key}" for key in _keys(path) - names.get(_section(file), set())]
    return lacking


def _section(file: str) -> str:
    for pattern, heading in SECTIONS:
        if re.fullmatch(pattern, file):
            return heading
    own = re.sub(r"^variants/[^/]+/", "variants/V/", file.replace("/checkpoints/", "/"))
    return f"`{re.sub(r'/step-[0-9]+', '', own)}`"


def _keys(path: Path) -> set[str]:
    if path.suffix == ".parquet":
        schema = pq.read_schema(path)
        return {*schema.names, *(key.decode() for key in schema.metadata or {})} - {"ARROW:schema"}
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    values = [json.loads(line) for line in lines]
    if path.name in BY_TASK:
        values = [one for value in values for one in value.values()]
    return {key for value in values for key in _keys_in(value)}


def _keys_in(value: object) -> Iterator[str]:
    for inner in value if isinstance(value, list) else ():
        yield from _keys_in(inner)
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield key
        if key not in NAMED_BY_DATA:
            yield from _keys_in(inner)
