"""What training shows step by step: the loss, and the step times against their prediction."""

import numpy as np

from sbcore.report.charts.style import MUTED, PANEL, Chart, add_legend, figure_style, new_figure
from sbcore.report.collect import Training
from sbcore.types import FloatArray


def loss_chart(trainings: dict[str, Training], colours: dict[str, str]) -> Chart:
    """Returns a smoothed line per variant over its raw values."""
    with figure_style():
        figure, axes = new_figure(*PANEL)
        widths = np.linspace(3.4, 1.2, len(trainings))  # equal curves stay visible
        for (name, training), width in zip(trainings.items(), widths, strict=True):
            step, loss = training.steps.step, training.steps.loss
            axes.plot(step, loss, color=colours[name], alpha=0.18, lw=1)
            axes.plot(step, smooth(loss), color=colours[name], lw=width, label=name)
        axes.set_xlabel("step")
        axes.set_ylabel("loss, nats per target token")
        add_legend(axes, 3)
    note = (
        "Bold: mean over a twentieth of the run around each step; pale: raw. The variants see the "
        "same global batches, so curves differ only by what attention leaves out, and rounding."
    )
    return Chart("loss", "Loss", note, figure)


def prediction_chart(trainings: dict[str, Training], colours: dict[str, str]) -> Chart:
    """Returns measured against predicted step times, a dot per measured step."""
    with figure_style():
        figure, axes = new_figure(*PANEL)
        right = top = 0.0
        for name, training in trainings.items():
            steps = training.steps
            x, y = steps.predicted_ms[steps.measured], steps.step_ms[steps.measured]
            axes.plot(x, y, "o", color=colours[name], alpha=0.45, markersize=3.5, label=name, mew=0)
            right, top = max(right, x.max(initial=0.0)), max(top, y.max(initial=0.0))
        axes.plot(
            [0, max(right, top)],
            [0, max(right, top)],
            color=MUTED,
            linewidth=0.9,
            linestyle=(0, (4, 3)),
        )
        axes.set_xlim(0, 1.03 * right)
        axes.set_ylim(0, 1.03 * top)
        axes.set_xlabel("predicted, ms per step")
        axes.set_ylabel("measured, ms per step")
        add_legend(axes, 3)
    note = (
        "A dot is a step. On the dashed line the prediction is exact; a cloud beside it is a "
        "constant that no layout changes, a wide cloud is what the latency model does not know."
    )
    return Chart("prediction", "Step time, measured and predicted", note, figure)


def smooth(values: FloatArray) -> FloatArray:
    """Returns the centred moving mean over a twentieth of the values, shorter at the ends.

    NaN is left out; where there is nothing else the mean is NaN.
    """
    half = max(1, len(values) // 40)
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    known = ~np.isnan(values)
    total, count = (
        np.concatenate([[0.0], np.cumsum(x)]) for x in (np.where(known, values, 0.0), known)
    )
    within = count[high] - count[low]
    means: FloatArray = (total[high] - total[low]) / np.where(within > 0, within, np.nan)
    return means
