"""What makes a training the same training: model, data order, method. Imports no torch.

The number of ranks, the plan's layout and the machine are left out on purpose: a checkpoint goes
on on another number of ranks with the same sample order. The parts are stored in words, so that
a refusal can say what differs.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbcore.artifacts import digest_file, read_json, write_json
from sbcore.config.stages import TrainStage
from sbcore.errors import SparseBalanceError

if TYPE_CHECKING:
    from sbcore.train.ranks import Ranks

RANDOM = "random"
"""What random start weights are known by; they follow from the seed."""

UNREAD = "unread"
"""What start weights are known by before they are read, which takes minutes: as good as any."""

START_WEIGHTS = "start_weights.json"
"""The note of their digest, in the folder of a training."""

FREE_KEYS = {
    "attention": ("backend",),
    "model": ("path", "save_dtype", "lora.save"),
    "train": (
        "activation_checkpointing",
        "recompute_above_tokens",
        "compile_layers",
        "layers_per_shard",
        "keep_gathered",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "warmup_steps_unmeasured",
        "max_nonfinite_steps",
        "trace_steps",
        "coverage_every_steps",
        "threads_per_rank",
    ),
}
"""Keys that may change between two halves of one training: where and how, not what it computes.

What it leaves behind at the end may change, too: the type of the weights, adapters merged or alone.
"""

_WRITTEN = frozenset(("model.save_dtype", "model.lora.save"))
"""Free keys that decide only how the trained model is written, once it is trained."""

_FREE = frozenset(f"{section}.{key}" for section, keys in FREE_KEYS.items() for key in keys)


@dataclass(frozen=True)
class RunIdentity:
    """``parts[word][key]``: plain values, as they stand in a checkpoint's cursor.json.

    ``settings`` are all keys of the stage, free or not; a training's cursor.json has them once it
    is finished.
    """

    parts: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]

    def difference(self, saved: "RunIdentity") -> str | None:
        """Returns what a saved identity has otherwise, ``part: key = there, here``; or None.

        Keys that are free today do not count, though an older checkpoint may hold them.
        """
        for word in sorted(self.parts.keys() | saved.parts.keys()):
            here, there = self.parts.get(word, {}), saved.parts.get(word, {})
            for key in sorted((here.keys() | there.keys()) - _FREE):
                if here.get(key) not in (there.get(key), UNREAD):
                    return f"{word}: {key} = {there.get(key)} there, {here.get(key)} here"
        return None

    def differs_in_writing(self, finished: "RunIdentity") -> bool:
        """Returns whether of a finished training only its model is to be written in another way."""
        here, there = self.settings, finished.settings
        changed = {key for key in here.keys() | there.keys() if here.get(key) != there.get(key)}
        return bool(changed) and changed <= _WRITTEN and self.difference(finished) is None


def digest_weights(model: Path | None, out: Path, ranks: "Ranks") -> str:
    """Returns what the start weights are known by; ``out`` is the folder of the training.

    Rank 0 reads the directory for all: each rank reading gigabytes would block a network disk.
    """
    from sbcore.train.ranks import by_first_rank

    if model is None:
        return RANDOM
    return by_first_rank(lambda: known_digest(model, out), ranks.host_group)


def known_digest(model: Path, out: Path) -> str:
    """Returns what the start weights are known by; gigabytes are read once, not at every start.

    start_weights.json in ``out`` keeps the digest with the files' sizes and times of change.

    Raises:
        SparseBalanceError: The directory cannot be read, or the note not be written.
    """
    note = out / START_WEIGHTS
    try:
        files = {
            str(file.relative_to(model)): _state(file.stat())
            for file in sorted(model.rglob("*"))
            if file.is_file()
        }
        noted = read_json(note) if note.exists() else {}
        if noted.get("files") != files:
            noted = {"digest": digest_file(model), "files": files}
            write_json(note, noted)
    except OSError as error:
        raise SparseBalanceError(
            f"{error.filename or note}: {error.strerror}: cannot be read or written. make room, or "
            "look at its permissions."
        ) from None
    digest: str = noted["digest"]
    return digest


def _state(stat: os.stat_result) -> list[int]:
    """Returns what changes with a file's bytes; times of change cannot be set, as by cp -p."""
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def run_identity(
    stage: TrainStage, order_digest: str, *, data_digest: str, weights_digest: str
) -> RunIdentity:
    """Returns the identity of a training.

    ``order_digest`` is the plan's, of the sequence of global batches whatever their layout;
    ``data_digest`` that of the samples themselves, ``weights_digest`` that of the start weights.
    """
    values = stage.model_dump(mode="json")
    model = values["model"] | {"start_weights": weights_digest}
    if stage.model.path is not None:
        model.pop("shape")  # not read
    method = {"variant": stage.variant, "seed": stage.seed, "kind": stage.kind}
    for section in ("attention", "tuner", "train"):
        method |= dict(_kept(section, values[section]))
    return RunIdentity(
        {
            "model": dict(_kept("model", model)),
            "data order": {"data_digest": data_digest, "order_digest": order_digest},
            "method": method,
        },
        settings=dict(_flat("", values)),
    )


def _kept(section: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in _flat(f"{section}.", values) if name not in _FREE)


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(f"{name}.", value)
        else:
            yield name, value
