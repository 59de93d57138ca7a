"""A table measured before, in place of a measurement: taken over, or refused by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sbcore.artifacts import digest_file, read_json
from sbcore.config.stages import ProfileLatencyStage
from sbcore.errors import SparseBalanceError
from sbcore.latency.made_for import stated
from sbcore.latency.table import profile_files, read_points
from sbcore.latency.write import write_profile

_SAME = (
    *("device", "dtype", "backend", "block_size", "barrier"),
    *("model_type", "num_layers", "hidden_size", "intermediate_size"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size"),
    *("activation_checkpointing", "recompute_above_tokens", "compile_layers", "lora_rank"),
    *("layers_per_shard", "keep_gathered", "loss", "forward", "lora_targets"),
)
"""What a table is refused for, when it was measured with another one."""

_FOUND_HERE = ("model_gib", "skipped", "drift", "seconds", "driver", "torch", "triton")
"""What a table tells of its own measurement."""


def use_table(
    table: Path, head: Mapping[str, Any], config: ProfileLatencyStage, *, out: Path, name: str
) -> dict[str, Any]:
    """Writes the table as this run's profile; returns its header. ``head`` says what it must fit.

    Raises:
        SparseBalanceError: The table is missing or broken, or measured with something else.
    """
    points_file, header = profile_files(table)
    measured = read_json(header)
    if not isinstance(measured, dict):
        raise SparseBalanceError(f"{header}: not a header. give the .parquet beside its .json.")
    measured = stated(measured)
    for key in _SAME:
        if key not in measured or measured[key] != head[key]:
            found = f"{key} = {measured[key]}" if key in measured else f"{key} is not stated"
            raise SparseBalanceError(
                f"latency.table = {table}: {found}, here it is {head[key]}: times of something "
                "else. leave latency.table out, so that this one is measured."
            )
    points = read_points(points_file)
    own = {key: measured.get(key) for key in ("num_ranks", "threads", *_FOUND_HERE)}
    source = {"table": str(table), "table_digest": digest_file(points_file)}
    top_k = config.attention.top_k
    return write_profile(out, {**head, **own, **source}, points, name=name, top_k=top_k)
