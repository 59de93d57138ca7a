"""Benchmark of the Triton MoBA kernels on a CUDA device: verifies first, prints no speed on red.

Usage: PYTHONPATH=kernels python kernels/bench/attention.py OUT.csv [--only=NAME,...] [SETTING ...]

`--only` names the implementations to call. Selection is part of `forward` and `forward_backward`,
but not of the peers `flex` and `gather`, whose masks and lists are made beforehand. Ratios are
taken inside a run (rows of one run_id), since the card's clock moves. Packed rows hold 16 sequences
in one call ("triton_packed") and the sum of 16 calls ("triton_parts").
"""

import csv
import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import triton
from flex_peer import flex_call
from gather_peer import gather_call
from inputs import draw
from own_calls import Maker, attend_and_grad, own_calls
from peers import DENSE, dense_call, flash_moba_call
from settings import PACKED_LENGTHS, SETTINGS, Setting, selected_tflop
from timing import Timing, time_call
from verify import gather_is_right, verify

from sbkernels.moba.budget import TopKRange
from sbkernels.moba.triton import forward
from sbkernels.moba.triton.lists import build_union_lists
from sbkernels.moba.triton.op import select
from sbkernels.moba.triton.selection import PackedSelection
from sbkernels.testing import FAMILIES, PackedInputs

SPARSE_PEERS_AT = "64k"


def measure(
    name: str, setting: Setting, family: str, *, only: list[str]
) -> Iterator[tuple[str, str, Timing]]:
    """Yields (part, implementation, timing) of one setting."""
    inputs = draw(setting, (setting.length,), family)
    known = TopKRange(setting.top_k, setting.top_k)
    top_k = torch.tensor([setting.top_k], dtype=torch.int32, device="cuda")
    selection = select(
        *(inputs.q, inputs.k, inputs.cu_seqlens, top_k),
        block_size=setting.block_size,
        max_seqlen=setting.length,
        top_k_range=known,
    )
    lists = build_union_lists(selection.words, selection.table, tile_rows=128, num_skipped=0)
    inflation = 128 * lists.num_past.sum() / lists.num_pairs.sum().clamp(min=1)
    print(f"{name} {family}: union inflation {float(inflation):.2f}", flush=True)
    calls = [*own_calls(setting, inputs, selection), *dense_calls(inputs)]
    if name == SPARSE_PEERS_AT and (not only or {"flex", "gather", "flash_moba"} & set(only)):
        calls += sparse_calls(setting, inputs, selection)
    for part, implementation, make in calls:
        if not only or implementation in only:
            yield part, implementation, time_call(make())


def dense_calls(inputs: PackedInputs) -> Iterator[Maker]:
    """Yields the library's dense attention."""
    for peer in DENSE:
        yield "forward", peer, partial(dense_call, inputs, peer, backward=False)
        yield "forward_backward", peer, partial(dense_call, inputs, peer, backward=True)


def sparse_calls(
    setting: Setting, inputs: PackedInputs, selection: PackedSelection
) -> Iterator[Maker]:
    """Yields the sparse peers that can be had here."""
    sizes = {"block_size": setting.block_size, "top_k": setting.top_k}
    gather = gather_is_right(setting)
    for part, backward in (("forward", False), ("forward_backward", True)):
        flex = partial(flex_call, inputs, selection.words, block_size=setting.block_size)
        yield part, "flex", partial(flex, backward=backward)
        if gather:
            yield part, "gather", partial(gather_call, inputs, selection, backward=backward)
        if find_spec("flash_moba"):
            flash_moba = partial(flash_moba_call, inputs, **sizes, backward=backward)
            yield part, "flash_moba", flash_moba
    if not find_spec("flash_moba"):
        print("flash_moba: not importable", flush=True)


def measure_packed(setting: Setting, family: str) -> Iterator[tuple[str, str, Timing]]:
    """Yields the times of 16 sequences in one call and of 16 calls."""
    packed = draw(setting, PACKED_LENGTHS, family)
    parts = [draw(setting, (length,), family) for length in PACKED_LENGTHS]

    def call_on(inputs: PackedInputs) -> object:
        return attend_and_grad(
            inputs, setting.top_k, block_size=setting.block_size, max_seqlen=inputs.max_seqlen
        )

    yield "forward_backward", "triton_packed", time_call(lambda: call_on(packed))
    yield "forward_backward", "triton_parts", time_call(lambda: [call_on(x) for x in parts])


def main(target: Path, names: list[str], *, only: list[str]) -> None:
    """Verifies all settings, then writes a row per measurement as it is taken."""
    settings = {name: SETTINGS[name] for name in names or SETTINGS}
    shapes = {(s.block_size, s.num_heads, s.num_kv_heads, s.head_dim): s for s in settings.values()}
    small, forward.SMALL_WORK_FLOPS = forward.SMALL_WORK_FLOPS, 0  # both layouts of short packs
    for setting in shapes.values():
        verify(setting)
    forward.SMALL_WORK_FLOPS = small
    print("verified", flush=True)
    versions = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    run_id = uuid.uuid4().hex[:8]
    with target.open("w", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for name, setting in settings.items():
            for family in FAMILIES:
                rows = [(setting, row) for row in measure(name, setting, family, only=only)]
                if name == "64k" and not only:
                    pack = replace(setting, batch=len(PACKED_LENGTHS))
                    rows += [(pack, row) for row in measure_packed(setting, family)]
                for described, (part, implementation, timing) in rows:
                    row = {
                        **versions,
                        **asdict(described),
                        "inputs": family,
                        "part": part,
                        "implementation": implementation,
                        **{key: f"{value:.3f}" for key, value in asdict(timing).items()},
                        "run_id": run_id,
                    }
                    writer = writer or _start(file, row)
                    writer.writerow(row)
                    print(_line(described, part, implementation, timing), flush=True)
                file.flush()
                torch.cuda.empty_cache()


def _line(setting: Setting, part: str, implementation: str, timing: Timing) -> str:
    """Returns what is printed: TFLOP/s are those of the chosen pairs, also where all are done."""
    line = f"  {part:17} {implementation:21} {timing.p50_ms:9.2f} ms {timing.peak_gib:7.3f} GiB"
    if not part.startswith("forward") or setting.batch > 1:
        return line
    tflop = selected_tflop(setting, backward=part == "forward_backward")
    return f"{line} {1e3 * tflop / timing.p50_ms:6.0f} TFLOP/s"


def _start(file: object, row: dict[str, object]) -> "csv.DictWriter[str]":
    writer = csv.DictWriter(file, list(row), lineterminator="\n")  # type: ignore[arg-type]
    writer.writeheader()
    return writer


if __name__ == "__main__":
    options = [x for x in sys.argv[2:] if x.startswith("--only=")]
    main(
        Path(sys.argv[1]),
        [x for x in sys.argv[2:] if x not in options],
        only=[name for option in options for name in option[7:].split(",")],
    )
