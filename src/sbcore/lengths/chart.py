"""The picture of a length profile: where the samples are, where the tokens are, and the tail."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbcore.artifacts import replace_when_done
from sbcore.lengths.statistics import LengthProfile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart by colour-blind readers and in grey.
_SAMPLES, _TOKENS, _INK, _MUTED, _GRID = "#0b6cb0", "#e0812a", "#1b1f24", "#5d6673", "#dfe3e8"

_STYLE: dict[str, Any] = {
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "grid.color": _GRID,
    "legend.frameon": False,
}


def draw_chart(path: Path, profile: LengthProfile) -> None:
    """Writes the picture, png."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 3.9), layout="constrained")
        buckets, tail = figure.subplots(1, 2, width_ratios=(3, 2))
        _draw_buckets(buckets, profile)
        _draw_tail(tail, profile)
        figure.suptitle(
            f"{profile.count:,} samples, {profile.num_tokens:,} tokens: "
            f"median {profile.p50:,.0f}, mean {profile.mean:,.0f}, 99 % below {profile.p99:,.0f}, "
            f"longest {profile.max:,}",
            x=0.01,
            ha="left",
            fontsize=10,
        )
        with replace_when_done(path) as part:
            figure.savefig(part, format="png", dpi=150)


def _draw_buckets(axes: "Axes", profile: LengthProfile) -> None:
    places = range(len(profile.buckets))
    for offset, key, color, name in (
        (-0.2, "sample_share", _SAMPLES, "samples"),
        (0.2, "token_share", _TOKENS, "tokens"),
    ):
        shares = [100 * getattr(bucket, key) for bucket in profile.buckets]
        axes.bar([at + offset for at in places], shares, width=0.38, color=color, label=name)
    axes.set_xticks(
        list(places), [_label(bucket.low) for bucket in profile.buckets], rotation=45, ha="right"
    )
    axes.set(xlabel="length from, tokens", ylabel="share, %")
    axes.set_title("Share by length", loc="left", fontsize=9)
    axes.grid(axis="y")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)


def _draw_tail(axes: "Axes", profile: LengthProfile) -> None:
    lengths, samples, tokens = zip(*profile.tail, strict=True)
    axes.plot(lengths, [100 * s for s in samples], color=_SAMPLES, label="samples")
    axes.plot(lengths, [100 * t for t in tokens], color=_TOKENS, linestyle="--", label="tokens")
    axes.set(
        xscale="log", yscale="log", xlabel="length, tokens", ylabel="share at least as long, %"
    )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: _label(value))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_title("The tail", loc="left", fontsize=9)
    axes.grid(visible=True, which="major")
    axes.legend(loc="lower left")


def _label(tokens: float) -> str:
    return f"{tokens / 1024:.3g}K" if tokens >= 1024 else f"{tokens:.0f}"
