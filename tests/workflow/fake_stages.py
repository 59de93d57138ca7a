"""Stands in for `sb`, `torchrun` and `python`: writes a stage's files without its work.

What is tested is the graph, not the stages: which jobs run, and when. Where a file `real-checks`
lies in the folder, the training's inputs are checked by the real command.
"""

import os
import signal
import sys
from pathlib import Path

FILES = {
    "open-run": ["tracking.json"],
    "make-demo": ["train.jsonl", "tokenizer/tokenizer.json", "tasks/tasks.json", "manifest.json"],
    "make-base": ["config.json"],
    "prepare": ["tokens.bin", "targets.bin", "index.parquet", "summary.json", "manifest.json"],
    "profile-lengths": ["lengths.json", "lengths.png", "lengths.manifest.json"],
    "profile-latency": [
        "latency.parquet",
        "latency.json",
        "latency.png",
        "latency.manifest.json",
    ],
    "plan": ["plan.parquet", "summary.json", "manifest.json"],
    "train": ["model/config.json", "summary.json", "manifest.json"],
    "evaluate": ["result.json", "manifest.json"],
    "report": ["index.html", "summary.json", "manifest.json"],
    "close-run": [""],
    "fail-run": [],
    "end-run": [],
}


def main(words: list[str]) -> None:
    if "sbcore.train.inputs" in words:
        if Path("real-checks").exists():
            os.execv(sys.executable, [sys.executable, *words])
        return
    if "sbcore.train.node" in words:  # the real one, which becomes the torchrun that stands in
        os.execv(sys.executable, [sys.executable, *words])
    stage = "train" if "sbcore.train" in words else words[0]
    out = Path(words[words.index("--out") + 1]) if "--out" in words else Path()
    sys.stdout.write(f"{stage} says so\n")
    sys.stdout.flush()
    if Path("wait").exists() and stage == Path("wait").read_text():
        signal.sigwait({signal.SIGINT})
        sys.stderr.write(f"{stage}: ended by SIGINT\n")
        sys.exit(130)
    for name in FILES[stage]:
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(words))
    if Path("fail").exists() and stage == Path("fail").read_text():
        sys.stderr.write("place: key = value: wrong. mend it.\n")
        sys.exit(2)


if Path("wait").exists():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # for whoever waits for it
main(sys.argv[1:])
