"""Tables of variants: simulated on real lengths, and measured where a run was written down."""

import csv
from pathlib import Path

SIMULATED = Path(__file__).with_name("tuning_ablation.csv")
MEASURED = Path(__file__).with_name("tuning_measured.csv")


def speedups() -> str:
    """Returns speedups over the baseline with coverage_delta, a column per situation."""
    cells: dict[str, list[str]] = {}
    situations: dict[str, None] = {}
    for row in _rows(SIMULATED):
        where = f"{row['data']}, {row['barrier']}, {row['num_ranks']} x {row['global_batch']}"
        situations.setdefault(where)
        text = f"{float(row['speedup']):.2f} [{_signed(row['coverage_delta'])}]"
        cells.setdefault(row["variant"], []).append(text)
    measured = {row["variant"]: row for row in _rows(MEASURED)}
    head = ["variant", *situations, "demo, measured"]
    lines = [head, ["---"] * len(head)]
    lines += [[name, *found, _measured(measured.get(name))] for name, found in cells.items()]
    return _markdown(lines)


def targets() -> str:
    """Returns what the goals of tuning ask of each tuned variant, over the situations."""
    head = ["variant", "anchor missed by, %", "coverage_delta", "worst layer, points"]
    lines = [head, ["---"] * len(head)]
    rows = _rows(SIMULATED)
    for name in dict.fromkeys(row["variant"] for row in rows if float(row["worst_layer"])):
        own = [row for row in rows if row["variant"] == name]
        missed = [float(row["anchor_miss_pct"]) for row in own if row["anchor_miss_pct"]]
        span = f"{min(missed):.2f} to {max(missed):.2f}" if missed else "–"  # noqa: RUF001
        delta = sorted(float(row["coverage_delta"]) for row in own)
        worst = min(float(row["worst_layer"]) for row in own)
        lines.append([name, span, f"{delta[0]:+.2f} to {delta[-1]:+.2f}", f"{worst:+.2f}"])
    return _markdown(lines)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _measured(row: dict[str, str] | None) -> str:
    if row is None or not row["speedup"]:
        return "–"  # noqa: RUF001
    delta = _signed(row["coverage_delta"]) if row["coverage_delta"] else "not measured"
    return f"{float(row['speedup']):.2f} [{delta}]"


def _signed(text: str) -> str:
    return f"{round(float(text), 1) + 0.0:+.1f}"


def _markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
