"""What a budget range on the host, head windows and the dense first rows change; packed calls.

Usage: PYTHONPATH=kernels python kernels/bench/bounds.py OUT.csv [--check] [--only=NAME,...]
[CASE ...]

`--check` calls everything once and times nothing: it fills the compiler's cache, and several
processes may do it side by side. `--only` names the implementations to call. Rows of one run
share `run_id`: take ratios inside it. "graph" replays a captured CUDA graph, so that it is time
on the device alone. `length` counts all tokens of the `batch` sequences of a call.
"""

import csv
import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
import triton
from calls import HEAD_DIM, Call, Case, attend_call, draw, obeys, select_call
from peers import dense_call, library_calls
from timing import Timing, time_call

from sbkernels.graphs import captured
from sbkernels.testing import PackedInputs

# Prompt tokens of 16 consecutive requests of the Mooncake conversation trace: 65,254 in all.
MOONCAKE = (5871, 6413, 17759, 949, 3167, 2794, 922, 932, 1042, 2353, 2382, 12903, 907, 939)
MOONCAKE_LENGTHS = (*MOONCAKE, 1556, 4365)
DESCRIPTION = (
    *("device", "torch", "triton", "length", "block_size", "top_k"),
    *("num_heads", "num_kv_heads", "head_dim", "batch"),
)
COLUMNS = (*DESCRIPTION, "inputs", "part", "implementation", *Timing.__annotations__, "run_id")


CASES = {
    "2k": Case(lengths=(2048,), top_k=4, families=("iid",)),
    "4k": Case(lengths=(4096,), top_k=8, families=("iid",)),
    "8k": Case(lengths=(8192,), families=("iid",)),
    "16k": Case(lengths=(16384,)),
    "32k": Case(lengths=(32768,)),
    "64k": Case(lengths=(65536,)),
    "64k_128x8": Case(lengths=(65536,), block_size=128, top_k=8, num_kv_heads=16),
    "mooncake": Case(lengths=MOONCAKE_LENGTHS),
    "8x8k": Case(lengths=(8192,) * 8, families=("iid",)),
    "64x1k": Case(lengths=(1024,) * 64, families=("iid",)),
    "256k": Case(lengths=(262144,), families=("correlated",)),
}


def calls_of(name: str, case: Case, family: str) -> Iterator[tuple[str, str, Call]]:
    """Yields (part, implementation, call) of a case; a name in _graph asks for a captured one."""
    inputs = draw(case, case.lengths, family)
    both = "forward_backward"
    if name == "mooncake":
        yield from _packed_calls(case, inputs, family)
    elif len(case.lengths) > 1:
        yield both, "triton_graph", attend_call(case, inputs, bounded=True)
        for implementation, call in library_calls(inputs, case.lengths).items():
            yield both, implementation, call
            yield both, f"{implementation}_graph", call
    else:
        yield from _single_calls(name, case, inputs)


def _single_calls(name: str, case: Case, inputs: PackedInputs) -> Iterator[tuple[str, str, Call]]:
    both, length = "forward_backward", case.lengths[0]
    for part in ("forward", both):
        yield part, "cudnn", dense_call(inputs, "cudnn", backward=part == both)
    if name != "256k":
        yield both, "triton_unbounded", attend_call(case, inputs, bounded=False)
    yield both, "triton_bounded", attend_call(case, inputs, bounded=True)
    yield "forward", "triton_bounded", attend_call(case, inputs, bounded=True, backward=False)
    for mib in (256, 128) if length >= 65536 else ():
        yield both, f"triton_{mib}mib", attend_call(case, inputs, bounded=True, sums_mib=mib)
    if length <= 65536 and case.top_k * case.block_size * 8 >= length:
        prefixed = attend_call(case, inputs, bounded=True, share=0.1, sums_mib=256)
        if obeys(case, inputs, prefixed):
            yield both, "triton_dense_rows", prefixed
            if length <= 16384:
                yield both, "triton_dense_rows_graph", prefixed
    if length <= 16384:
        yield both, "triton_unbounded_graph", attend_call(case, inputs, bounded=False)
        yield "selection", "triton_graph", select_call(case, inputs)
        cudnn = dense_call(inputs, "cudnn", backward=True)
        yield both, "cudnn_graph", cudnn
        plain = attend_call(case, inputs, bounded=True)
        yield both, "triton_bounded_graph", plain
        fixed = attend_call(case, inputs, bounded=True, deterministic=True)
        yield both, "triton_deterministic_graph", fixed


def _packed_calls(case: Case, inputs: PackedInputs, family: str) -> Iterator[tuple[str, str, Call]]:
    packed = attend_call(case, inputs, bounded=True, sums_mib=256)
    singles = [
        Case(lengths=(n,), block_size=case.block_size, top_k=case.top_k) for n in case.lengths
    ]
    drawn = [draw(single, single.lengths, family) for single in singles]

    def one_by_one(*, bounded: bool) -> Call:
        calls = [
            attend_call(single, part, bounded=bounded)
            for single, part in zip(singles, drawn, strict=True)
        ]
        return lambda: [call() for call in calls]

    yield "forward_backward", "triton_packed", packed
    yield "forward_backward", "triton_packed_graph", packed
    yield "forward_backward", "triton_parts", one_by_one(bounded=False)
    yield "forward_backward", "triton_parts_graph", one_by_one(bounded=False)
    yield "forward_backward", "triton_parts_bounded_graph", one_by_one(bounded=True)


def _describe(case: Case) -> dict[str, object]:
    values = (
        torch.cuda.get_device_name(),
        torch.__version__,
        triton.__version__,
        sum(case.lengths),
        case.block_size,
        case.top_k,
        case.num_heads,
        case.num_kv_heads,
        HEAD_DIM,
        len(case.lengths),
    )
    return dict(zip(DESCRIPTION, values, strict=True))


def main(target: Path, names: list[str], *, only: list[str], check: bool) -> None:
    """Writes a row per measurement as it is taken, of the implementations in `only` if any."""
    run_id = uuid.uuid4().hex[:8]
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for name in names or CASES:
            case = CASES[name]
            for family in case.families[:1] if check else case.families:
                for part, implementation, call in calls_of(name, case, family):
                    if only and implementation not in only:
                        continue
                    try:
                        timed = captured(call) if implementation.endswith("_graph") else call
                        timed()
                    except (RuntimeError, TypeError, ValueError) as error:
                        print(f"{name} {implementation}: cannot: {error}"[:200], flush=True)
                        continue
                    if check:
                        continue
                    timing = time_call(timed)
                    numbers = {key: f"{value:.3f}" for key, value in asdict(timing).items()}
                    label = {"inputs": family, "part": part, "implementation": implementation}
                    writer.writerow({**_describe(case), **label, **numbers, "run_id": run_id})
                    file.flush()
                    line = f"{name:10}{family[:4]:6}{part:17}{implementation:27}"
                    print(f"{line}{timing.p50_ms:9.3f} ms {timing.peak_gib:7.3f} GiB", flush=True)
                torch.cuda.synchronize()
                torch.cuda.empty_cache()


if __name__ == "__main__":
    options = [x for x in sys.argv[2:] if x.startswith("--")]
    main(
        Path(sys.argv[1]),
        [x for x in sys.argv[2:] if x not in options],
        only=[x for o in options if o.startswith("--only=") for x in o[7:].split(",")],
        check="--check" in options,
    )
