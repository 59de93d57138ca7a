"""The picture: simulated speedup against data-parallel size, and against the global batch."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sbcore.artifacts import replace_when_done
from sbcore.report.charts.speed import variant_colours
from sbcore.report.charts.style import PANEL, figure_style
from sbcore.simulate.run import simulate
from sbcore.simulate.setting import Setting
from sbcore.simulate.show import describe
from sbcore.simulate.words import BASELINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_RANKS = 1024
_SEQUENCES_PER_RANK = (1, 2, 4, 8, 16)

Curves = dict[str, list[float]]


def rank_counts(setting: Setting) -> list[int]:
    """Returns powers of two up to the global batch, and the setting's own number of ranks."""
    powers = [2**power for power in range(1, _MOST_RANKS.bit_length())]
    return sorted({setting.num_ranks, *(n for n in powers if n <= setting.global_batch)})


def global_batches(setting: Setting) -> list[int]:
    """Returns multiples of the ranks for which the lengths suffice, and the setting's own."""
    multiples = [n * setting.num_ranks for n in _SEQUENCES_PER_RANK]
    usable = {n for n in multiples if 2 <= n <= len(setting.lengths)}
    return sorted({setting.global_batch, *usable})


def draw_figure(path: Path, setting: Setting, names: Sequence[str]) -> None:
    """Writes the picture, whole or not at all; every point is a comparison of its own."""
    from matplotlib.figure import Figure

    ranks, batches = rank_counts(setting), global_batches(setting)
    by_ranks = _curves((_on_ranks(setting, n) for n in ranks), names)
    by_batch = _curves((replace(setting, global_batch=n) for n in batches), names)
    with figure_style():
        figure = Figure(figsize=(2 * PANEL[0], PANEL[1] + 1.3))
        left, right = figure.subplots(1, 2, sharey=True)
        _plot(left, ranks, by_ranks, f"Data-parallel ranks, global batch {setting.global_batch}")
        _plot(right, batches, by_batch, f"Global batch, {setting.num_ranks} ranks")
        left.set_ylabel("Speedup over baseline, simulated")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5)
        figure.suptitle(_title(setting), fontsize=8, x=0.01, ha="left")
        with replace_when_done(path) as part:
            figure.savefig(part, format="png", dpi=150, metadata={"Software": None})


def _on_ranks(setting: Setting, num_ranks: int) -> Setting:
    """Returns the setting on another number of ranks; slow ones stay, as far as they are there."""
    factors = setting.speed_factors
    if factors:
        factors = (*factors, *[1.0] * num_ranks)[:num_ranks]
    return replace(setting, num_ranks=num_ranks, speed_factors=factors)


def _title(setting: Setting) -> str:
    budget = f"top_k {setting.config.top_k} of {setting.block_size} tokens"
    what = f"Simulated, not measured: barrier {setting.barrier}, {budget}"
    return "\n".join([what, *describe(setting)[1:]])


def _curves(settings: Iterable[Setting], names: Sequence[str]) -> Curves:
    """Returns each variant's speedups over the settings."""
    curves: Curves = {name: [] for name in names}
    for setting in settings:
        for result in simulate(setting, names):
            curves[result.variant].append(result.speedup)
    return curves


def _plot(axes: "Axes", at: Sequence[int], curves: Curves, label: str) -> None:
    colours = variant_colours(list(curves), BASELINE)
    for name, speedups in curves.items():
        axes.plot(at, speedups, "o-", color=colours[name], label=name, markersize=3.5)
    axes.set_xscale("log", base=2)
    axes.set_xticks(at, [f"{n:,}" for n in at])
    axes.minorticks_off()
    axes.set_xlabel(label)
