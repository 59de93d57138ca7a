"""Benchmark of the Triton MoBA kernels on a CUDA device: verifies first, prints no speed on red.

Usage: PYTHONPATH=kernels python kernels/bench/attention.py OUT.csv [SETTING ...]

Selection is part of `forward` and `forward_backward`. Ratios are taken inside a run (rows of one
run_id), since the card's clock moves. Packed rows hold 16 sequences in one call ("triton_packed")
and the sum of 16 calls ("triton_parts").
"""

import csv
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import triton
from inputs import draw_inputs
from peers import DENSE, dense_call, flex_call
from timing import Timing, time_call

from sbkernels import coverage_curve, moba_attention, select_blocks
from sbkernels.moba.budget import TopKRange
from sbkernels.moba.triton import forward
from sbkernels.moba.triton.blocks import build_block_table
from sbkernels.moba.triton.lists import build_union_lists
from sbkernels.moba.triton.op import select
from sbkernels.testing import (
    FAMILIES,
    PackedInputs,
    assert_error_rule,
    attend_masked,
)

LADDER = (1, 2, 4, 8, 16, 24, 32, 48, 64, 128)
# Lengths of documents as they come, 16 of them in 64K tokens.
PACKED = (512, 700, 900, 1300, 1500, 1800, 2100, 2600, 3000, 3500, 4200, 5000, 6100, 7300, 9000)
PACKED_LENGTHS = (*PACKED, 65536 - sum(PACKED))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One case of the benchmark; `length` counts tokens."""

    length: int
    block_size: int
    top_k: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    batch: int = 1


def _paper(length: int, top_k: int = 32) -> Setting:
    return Setting(
        length=length, block_size=256, top_k=top_k, num_heads=16, num_kv_heads=2, head_dim=128
    )


SETTINGS = {
    "64k": _paper(65536),
    "64k_d64": Setting(
        length=65536, block_size=256, top_k=32, num_heads=14, num_kv_heads=2, head_dim=64
    ),
    "64k_128x8": Setting(
        length=65536, block_size=128, top_k=8, num_heads=16, num_kv_heads=16, head_dim=128
    ),
    "32k": _paper(32768),
    "16k": _paper(16384),
    "8k": _paper(8192),
    "64k_k8": _paper(65536, 8),
    "64k_k16": _paper(65536, 16),
    "64k_32_8": Setting(
        length=65536, block_size=256, top_k=32, num_heads=32, num_kv_heads=8, head_dim=128
    ),
    "128k": _paper(131072),
    "256k": _paper(262144),
}
FLEX_SETTING = "64k"


def verify(setting: Setting) -> None:
    """Raises AssertionError unless out, dq, dk, dv obey the error rule on a short pack."""
    for family in FAMILIES:
        inputs = _draw(setting, (1500, 0, 1, 1100), family)
        top_k = 3
        options = {"block_size": setting.block_size, "max_seqlen": inputs.max_seqlen}
        selection = select_blocks(inputs.q, inputs.k, inputs.cu_seqlens, top_k, **options)
        scale = setting.head_dim**-0.5
        exact = attend_masked(inputs.to(torch.float64), selection, scale=scale)
        plain = attend_masked(inputs, selection, scale=scale)
        got = _attend_and_grad(inputs, top_k, **options)
        for name, ours, true, baseline in zip(
            ("out", "dq", "dk", "dv"), got, exact, plain, strict=True
        ):
            assert_error_rule(name, ours, true, baseline)


def measure(name: str, setting: Setting, family: str) -> Iterator[tuple[str, str, Timing]]:
    """Yields (part, implementation, timing) of one setting."""
    inputs = _draw(setting, (setting.length,), family)
    top_k = torch.tensor([setting.top_k], dtype=torch.int32, device="cuda")
    options = {"block_size": setting.block_size, "max_seqlen": inputs.max_seqlen}
    here = (inputs.q, inputs.k, inputs.cu_seqlens)
    promise = {"min_top_k": setting.top_k, "max_top_k": setting.top_k}
    calls: list[tuple[str, str, Callable[[], object]]] = [
        ("selection", "triton", lambda: select_blocks(*here, top_k, **options)),
        ("coverage", "triton", lambda: coverage_curve(*here, ladder=LADDER, **options)),
        ("forward", "triton", lambda: _attend(inputs, top_k, **promise, **options)),
        (
            "forward_backward",
            "triton",
            lambda: _attend_and_grad(inputs, top_k, **promise, **options),
        ),
        (
            "forward_backward",
            "triton_unbounded",
            lambda: _attend_and_grad(inputs, top_k, **options),
        ),
        (
            "forward_backward",
            "triton_deterministic",
            lambda: _attend_and_grad(inputs, top_k, deterministic=True, **promise, **options),
        ),
    ]
    for peer in DENSE:
        calls.append(("forward", peer, dense_call(inputs, peer, backward=False)))
        calls.append(("forward_backward", peer, dense_call(inputs, peer, backward=True)))
    known = TopKRange(setting.top_k, setting.top_k)
    words = select(*here, top_k, **options, top_k_range=known).words
    table = build_block_table(inputs.cu_seqlens, setting.length, block_size=setting.block_size)
    lists = build_union_lists(words, table, tile_rows=128, num_skipped=0)
    inflation = 128 * lists.num_past.sum() / lists.num_pairs.sum().clamp(min=1)
    print(f"{name} {family}: union inflation {float(inflation):.2f}", flush=True)
    if name == FLEX_SETTING:
        for part, backward in (("forward", False), ("forward_backward", True)):
            call = flex_call(inputs, words, lists, block_size=setting.block_size, backward=backward)
            calls.append((part, "flex", call))
    for part, implementation, call in calls:
        yield part, implementation, time_call(call)


def measure_packed(setting: Setting, family: str) -> Iterator[tuple[str, str, Timing]]:
    """Yields the times of 16 sequences in one call and of 16 calls."""
    packed = _draw(setting, PACKED_LENGTHS, family)
    parts = [_draw(setting, (length,), family) for length in PACKED_LENGTHS]

    def call_on(inputs: PackedInputs) -> object:
        return _attend_and_grad(
            inputs, setting.top_k, block_size=setting.block_size, max_seqlen=inputs.max_seqlen
        )

    yield "forward_backward", "triton_packed", time_call(lambda: call_on(packed))
    yield "forward_backward", "triton_parts", time_call(lambda: [call_on(x) for x in parts])


def _draw(setting: Setting, lengths: tuple[int, ...], family: str) -> PackedInputs:
    return draw_inputs(
        lengths,
        num_heads=setting.num_heads,
        num_kv_heads=setting.num_kv_heads,
        head_dim=setting.head_dim,
        family=family,
        seed=0,
    )


def _attend(inputs: PackedInputs, top_k: int | torch.Tensor, **options: int) -> torch.Tensor:
    with torch.no_grad():
        return moba_attention(inputs.q, inputs.k, inputs.v, inputs.cu_seqlens, top_k, **options)


def _attend_and_grad(
    inputs: PackedInputs, top_k: int | torch.Tensor, **options: int
) -> tuple[torch.Tensor, ...]:
    q, k, v = (x.detach().requires_grad_() for x in (inputs.q, inputs.k, inputs.v))
    out = moba_attention(q, k, v, inputs.cu_seqlens, top_k, **options)
    return (out.detach(), *torch.autograd.grad(out, (q, k, v), inputs.grad_out))


def main(target: Path, names: list[str]) -> None:
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
                rows = [(setting, row) for row in measure(name, setting, family)]
                if name == "64k":
                    pack = Setting(**{**asdict(setting), "batch": len(PACKED_LENGTHS)})
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
                    print(f"  {part:17} {implementation:21} {timing.p50_ms:9.2f} ms", flush=True)
                file.flush()
                torch.cuda.empty_cache()


def _start(file: object, row: dict[str, object]) -> "csv.DictWriter[str]":
    writer = csv.DictWriter(file, list(row), lineterminator="\n")  # type: ignore[arg-type]
    writer.writeheader()
    return writer


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
