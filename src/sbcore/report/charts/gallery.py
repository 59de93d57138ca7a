"""All charts of a report, by the section that shows them."""

from collections.abc import Iterator
from dataclasses import dataclass

from sbcore.report.bubbles import Bubbles, find_bubbles
from sbcore.report.charts.bubbles import bubble_overview, bubble_steps
from sbcore.report.charts.budgets import budget_charts
from sbcore.report.charts.curves import curve_chart, expected_and_measured, foretold_chart
from sbcore.report.charts.profiles import latency_chart, length_chart
from sbcore.report.charts.speed import step_times, time_parts, variant_colours
from sbcore.report.charts.style import Chart
from sbcore.report.charts.timeline import timelines, typical_step
from sbcore.report.charts.training import loss_chart, prediction_chart
from sbcore.report.collect import RunRecord, Training
from sbcore.report.steps import is_fixed


@dataclass(frozen=True)
class Gallery:
    """Charts by section; empty where their data are missing."""

    speed: list[Chart]
    step: int | None
    """The step that the timelines show."""
    timelines: list[Chart]
    training: list[Chart]
    tuning: list[Chart]
    """Compares the tuned variants."""
    budgets: dict[str, list[Chart]]
    """By tuned variant."""
    fixed: list[str]
    """Variants whose budgets follow from the length alone, which have nothing to draw."""
    profiles: list[Chart]

    @property
    def charts(self) -> list[Chart]:
        """All of them, in the page's order."""
        sections = [self.speed, self.timelines, self.training, self.tuning]
        return [
            x for section in (*sections, *self.budgets.values(), self.profiles) for x in section
        ]


def draw_gallery(record: RunRecord) -> Gallery:
    """Returns every chart that the run's files allow."""
    trained = {v.variant: v.training for v in record.variants if v.training}
    baseline = record.baseline.training or next(iter(trained.values()), None)
    colours = variant_colours([v.variant for v in record.variants], record.baseline.variant)
    step = typical_step(baseline.steps) if baseline else None
    tuned = {name: x for name, x in trained.items() if not is_fixed(x.ledger)}
    bubbles = {name: find_bubbles(training, record.barrier) for name, training in tuned.items()}
    return Gallery(
        speed=[step_times(trained, colours), time_parts(trained)] if trained else [],
        step=step,
        timelines=[] if step is None else timelines(trained, step),
        training=[loss_chart(trained, colours), prediction_chart(trained, colours)]
        if trained
        else [],
        tuning=list(_tuning(tuned, bubbles, colours)),
        budgets={
            name: list(_budgets(name, training, bubbles[name], colour=colours[name]))
            for name, training in tuned.items()
        },
        fixed=[name for name in trained if name not in tuned],
        profiles=list(_profiles(record)),
    )


def _tuning(
    tuned: dict[str, Training], bubbles: dict[str, Bubbles | None], colours: dict[str, str]
) -> Iterator[Chart]:
    """Yields what compares the tuned variants."""
    known = {name: found for name, found in bubbles.items() if found}
    if known:
        yield bubble_overview(known, colours)
    learned = [(name, x.curves) for name, x in tuned.items() if x.curves is not None]
    if learned:
        yield curve_chart(*learned[-1])
    foretold = {
        name: x.steps for name, x in tuned.items() if len(expected_and_measured(x.steps)[0])
    }
    if foretold:
        yield foretold_chart(foretold, colours)


def _budgets(
    name: str, training: Training, bubbles: Bubbles | None, *, colour: str
) -> Iterator[Chart]:
    """Yields what one tuned variant did."""
    yield from budget_charts(name, training.ledger, colour=colour)
    if bubbles:
        yield bubble_steps(name, bubbles, colour=colour)


def _profiles(record: RunRecord) -> Iterator[Chart]:
    if record.lengths:
        yield length_chart(record.lengths)
    if record.latency:
        yield latency_chart(record.latency)
