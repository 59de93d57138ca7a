"""All charts of a report, by the section that shows them."""

from collections.abc import Iterator
from dataclasses import dataclass

from sbcore.report.charts.budgets import budget_charts, is_fixed
from sbcore.report.charts.profiles import latency_chart, length_chart
from sbcore.report.charts.speed import step_times, time_parts, variant_colours
from sbcore.report.charts.style import Chart
from sbcore.report.charts.timeline import timelines, typical_step
from sbcore.report.charts.training import loss_chart, prediction_chart
from sbcore.report.collect import RunRecord, Training


@dataclass(frozen=True)
class Gallery:
    """Charts by section; empty where their data are missing."""

    speed: list[Chart]
    step: int | None
    """The step that the timelines show."""
    timelines: list[Chart]
    training: list[Chart]
    budgets: list[Chart]
    fixed: list[str]
    """Variants whose budgets follow from the length alone, which have nothing to draw."""
    profiles: list[Chart]

    @property
    def charts(self) -> list[Chart]:
        """All of them, in the page's order."""
        sections = (self.speed, self.timelines, self.training, self.budgets, self.profiles)
        return [chart for section in sections for chart in section]


def draw_gallery(record: RunRecord) -> Gallery:
    """Returns every chart that the run's files allow."""
    trained = {v.variant: v.training for v in record.variants if v.training}
    baseline = record.baseline.training or next(iter(trained.values()), None)
    colours = variant_colours([v.variant for v in record.variants], record.baseline.variant)
    step = typical_step(baseline.steps) if baseline else None
    fixed = [name for name, training in trained.items() if is_fixed(training.ledger)]
    return Gallery(
        speed=[step_times(trained, colours), time_parts(trained)] if trained else [],
        step=step,
        timelines=[] if step is None else timelines(trained, step),
        training=_training(trained, colours) if trained else [],
        budgets=[
            chart
            for name, training in trained.items()
            if name not in fixed
            for chart in budget_charts(name, training.ledger, colour=colours[name])
        ],
        fixed=fixed,
        profiles=list(_profiles(record)),
    )


def _training(trained: dict[str, Training], colours: dict[str, str]) -> list[Chart]:
    return [loss_chart(trained, colours), prediction_chart(trained, colours)]


def _profiles(record: RunRecord) -> Iterator[Chart]:
    if record.lengths:
        yield length_chart(record.lengths)
    if record.latency:
        yield latency_chart(record.latency)
