"""How figures look, and how one figure becomes a picture file and a themed inline drawing.

Colours are roles. In a picture file a role is its light colour; in the page each light colour is
replaced by a CSS variable, so that the same drawing follows light and dark mode. Hues are those
of Okabe and Ito, told apart by colour-blind readers, darkened until lines reach a contrast of 3:1.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbcore.artifacts import replace_when_done

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, SURFACE = "#1b1f24", "#5d6673", "#dfe3e8", "#fdfdfc"
COMPUTE, WAITING, OTHER = "#2f6db3", "#f0b35a", "#9aa4b1"
SERIES = (
    "#6b7480",
    "#0b6cb0",
    "#c4540a",
    "#0a7f5e",
    "#a3488a",
    "#8a6d00",
    "#2c8fb8",
    "#7a4fbf",
    "#b0243e",
)

DARK = {
    INK: "#e8eaed",
    MUTED: "#a3acb8",
    GRID: "#333a44",
    SURFACE: "#161a1f",
    COMPUTE: "#5b9fe6",
    WAITING: "#c98a2b",
    OTHER: "#6d7784",
    **dict(
        zip(
            SERIES,
            (
                "#a9b2be",
                "#58aef0",
                "#f08a4b",
                "#3fc79a",
                "#e08fca",
                "#d9b930",
                "#6cc5ea",
                "#b596f5",
                "#f2778a",
            ),
            strict=True,
        )
    ),
}
"""The colour of each role on a dark page."""

_NAMES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    SURFACE: "surface",
    COMPUTE: "compute",
    WAITING: "waiting",
    OTHER: "other",
    **{colour: f"series-{i}" for i, colour in enumerate(SERIES)},
}
PANEL = (4.8, 2.9)
"""Inches: drawn as wide as a phone's screen or half a desktop page, text stays readable."""
SMALL_PANEL = (4.2, 2.9)
"""The same for a third of a desktop page."""

_RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "sparsebalance",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "figure.facecolor": SURFACE,
    "savefig.facecolor": SURFACE,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Chart:
    """A figure with the words that the page puts around it."""

    name: str
    """What its file is called."""
    title: str
    note: str
    """What is drawn, whether measured or predicted, and the sentence for who cannot see it."""
    figure: "Figure"

    @property
    def slug(self) -> str:
        """The name as a file name without ending and as an id: nothing to escape is left."""
        return re.sub(r"[^A-Za-z0-9_-]+", "-", self.name)


@contextmanager
def figure_style() -> Iterator[None]:
    """Applies the style within the block, for a figure without a window."""
    import matplotlib

    with matplotlib.rc_context(_RC):
        yield


def new_figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """Returns an empty figure of this size in inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100)
    return figure, figure.add_subplot()


def add_legend(axes: "Axes", num_columns: int) -> None:
    """Adds the legend above the axes, where it covers nothing."""
    place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0)}
    axes.legend(**place, ncols=num_columns, borderaxespad=0.2, handlelength=1.4, columnspacing=1.2)


def css_variables(theme: dict[str, str] | None) -> str:
    """Returns the roles as CSS declarations, in light colours or in a theme's."""
    return "".join(
        f"--{name}:{theme[colour] if theme else colour};" for colour, name in _NAMES.items()
    )


def save_picture(chart: Chart, folder: Path) -> Path:
    """Writes SLUG.png into the folder, returns it."""
    path = folder / f"{chart.slug}.png"
    with figure_style(), replace_when_done(path) as part:
        chart.figure.savefig(part, format="png", dpi=200, metadata={"Software": None})
    return path


def inline_drawing(chart: Chart) -> str:
    """Returns the figure as an svg element that takes its colours and font from the page."""
    stream = io.StringIO()
    with figure_style():
        chart.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    svg = _own_ids(svg, chart.slug)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for colour, name in _NAMES.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg


def _own_ids(svg: str, name: str) -> str:
    """Returns the drawing with ids that no other drawing of the page has."""
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
