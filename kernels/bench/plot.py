"""Draws the speed-up over cuDNN of each setting of a bench csv, and prints it as a table.

Usage: python kernels/bench/plot.py kernels/bench/results/h100.csv
"""

import csv
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from settings import SETTINGS, Setting, selected_tflop

COLORS = {"iid": "tab:blue", "correlated": "tab:orange"}


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Forward and backward of one setting and input family: medians of one run, ms."""

    run_id: str
    implementation: str
    ours_ms: float
    cudnn_ms: float

    @property
    def speedup(self) -> float:
        """Returns how many times as fast as cuDNN ours is."""
        return self.cudnn_ms / self.ours_ms


def implementations_of(setting: Setting) -> tuple[str, ...]:
    """Returns what a caller gets who knows the budget, by the names that runs gave it."""
    covered = setting.top_k * setting.block_size
    if covered >= setting.length:
        return ("triton_bounded",)
    if 2 * covered >= setting.length:
        return ("triton_dense_rows",)
    return ("triton_256mib", "triton", "triton_bounded")


def read_ratios(source: Path) -> dict[str, dict[str, Ratio]]:
    """Returns for each setting and input family the last run that has ours and cuDNN."""
    with source.open() as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "forward_backward"]
    return {name: _ratios_of(setting, rows) for name, setting in SETTINGS.items()}


def _ratios_of(setting: Setting, rows: list[dict[str, str]]) -> dict[str, Ratio]:
    times: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if all(row[key] == str(value) for key, value in asdict(setting).items()):
            cell = times.setdefault((row["inputs"], row["run_id"]), {})
            cell[row["implementation"]] = float(row["p50_ms"])
    ratios = {}
    for (family, run_id), cell in times.items():
        ours = [name for name in implementations_of(setting) if name in cell]
        if ours and "cudnn" in cell:
            ratios[family] = Ratio(
                run_id=run_id,
                implementation=ours[0],
                ours_ms=cell[ours[0]],
                cudnn_ms=cell["cudnn"],
            )
    return ratios


def describe(setting: Setting) -> str:
    """Returns the setting in a few characters."""
    heads = f"{setting.num_heads}/{setting.num_kv_heads} d{setting.head_dim}"
    return f"{setting.length // 1024}K {setting.block_size}x{setting.top_k} {heads}"


def main(source: Path) -> None:
    """Writes the plot beside the csv."""
    ratios = read_ratios(source)
    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    for shift, (family, color) in zip((-0.2, 0.2), COLORS.items(), strict=True):
        for place, (name, of_setting) in enumerate(ratios.items()):
            if family not in of_setting:
                continue
            ratio, setting = of_setting[family], SETTINGS[name]
            tflops = 1e3 * selected_tflop(setting, backward=True) / ratio.ours_ms
            bar = axes.barh(place + shift, ratio.speedup, 0.4, color=color, label=family)
            label = f"{ratio.speedup:.2f}, {tflops:.0f} TFLOP/s"
            axes.bar_label(bar, [label], padding=2, fontsize=8)
            times = f"{ratio.ours_ms:.3f} ms, cuDNN {ratio.cudnn_ms:.3f}"
            sys.stdout.write(
                f"{describe(setting):22}{family:12}{label:20}{times}, "
                f"{ratio.implementation}, run {ratio.run_id}\n"
            )
    axes.axvline(1.0, color="black", linewidth=0.8, zorder=0)
    axes.margins(x=0.22)
    axes.set_yticks(range(len(ratios)), [describe(SETTINGS[name]) for name in ratios])
    axes.invert_yaxis()
    axes.set_xlabel("forward + backward with selection: cuDNN's dense time / ours, one H100")
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    axes.legend(handles.values(), handles, loc="upper right")
    figure.savefig(source.with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
