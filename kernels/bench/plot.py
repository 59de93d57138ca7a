"""Draws the speed-up over cuDNN of each setting of a bench csv.

Usage: python kernels/bench/plot.py kernels/bench/results/h100.csv
"""

import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt

COLORS = {"iid": "tab:blue", "correlated": "tab:orange"}


def read_speedups(source: Path) -> dict[str, dict[str, float]]:
    """Returns for each setting and input family cuDNN's time over ours, forward and backward.

    Both of one run: the last that has them.
    """
    times: dict[tuple[str, str, str], dict[str, float]] = {}
    with source.open() as file:
        for row in csv.DictReader(file):
            if row["part"] == "forward_backward" and row["batch"] == "1":
                heads = f"{row['num_heads']}/{row['num_kv_heads']} d{row['head_dim']}"
                name = f"{int(row['length']) // 1024}K {row['block_size']}x{row['top_k']} {heads}"
                cell = times.setdefault((name, row["inputs"], row["run_id"]), {})
                cell[row["implementation"]] = float(row["p50_ms"])
    speedups: dict[str, dict[str, float]] = {}
    for (name, family, _), cell in times.items():
        if cell.keys() >= {"cudnn", "triton"}:
            speedups.setdefault(name, {})[family] = cell["cudnn"] / cell["triton"]
    return speedups


def main(source: Path) -> None:
    """Writes the plot beside the csv."""
    speedups = read_speedups(source)
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for shift, (family, color) in zip((-0.2, 0.2), COLORS.items(), strict=True):
        places = [i + shift for i in range(len(speedups))]
        bars = axes.barh(
            places, [s[family] for s in speedups.values()], 0.4, color=color, label=family
        )
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(speedups)), list(speedups))
    axes.invert_yaxis()
    axes.set_xlabel("forward + backward with selection: cuDNN's dense time / ours")
    axes.legend()
    figure.savefig(source.with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
