"""The page: one html file that needs nothing else, neither a script nor the network."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sbcore.report.account import time_accounts
from sbcore.report.charts.gallery import Gallery
from sbcore.report.charts.style import DARK, css_variables, inline_drawing
from sbcore.report.collect import RunRecord
from sbcore.report.columns import shown_columns
from sbcore.report.compare import Row
from sbcore.report.contracts import Manifest
from sbcore.report.doubts import doubts
from sbcore.report.evidence import evidence, in_words
from sbcore.report.headline import headline
from sbcore.report.numbers import milliseconds, number


def render(record: RunRecord, rows: list[Row], gallery: Gallery) -> str:
    """Returns the page; all text is escaped, drawings are the charts' own."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("sbcore.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "ms": milliseconds, "difference": in_words}
    environment.globals["drawing"] = lambda chart: Markup(inline_drawing(chart))
    page = environment.get_template("index.html.j2")
    return page.render(**_values(record, rows, gallery), light=_css(None), dark=_css(DARK))


def _values(record: RunRecord, rows: list[Row], gallery: Gallery) -> dict[str, Any]:
    return {
        "record": record,
        "rows": rows,
        "gallery": gallery,
        "headline": headline(record, rows),
        "columns": shown_columns(rows),
        "doubts": doubts(record, rows),
        "facts": facts(record),
        "tasks": task_rows(record, rows),
        "evidence": evidence(record),
        "accounts": time_accounts(record),
        "manifests": record.manifests,
        "versions": versions(record.manifests),
    }


def _css(theme: dict[str, str] | None) -> Any:
    from markupsafe import Markup

    return Markup(css_variables(theme))


def facts(record: RunRecord) -> dict[str, str]:
    """Returns what all numbers of the page have in common."""
    found = {}
    trained = record.baseline.training
    if trained:
        found = {
            "device": trained.summary.device,
            "ranks": str(trained.summary.num_ranks),
            "barrier": record.barrier,
            "steps": str(trained.summary.num_steps),
            "tokens": f"{trained.summary.num_tokens:,}",
        }
    commits = {m.commit[:7] for m in record.manifests.values() if m.commit}
    return found | {"commit": ", ".join(sorted(commits)) or "unknown"}


@dataclass(frozen=True)
class TaskRow:
    """A task's scores, by variant; None where a variant has none."""

    task: str
    num_examples: int
    """Fewest of all variants."""
    chance: float | None
    scores: list[float | None]


def task_rows(record: RunRecord, rows: list[Row]) -> list[TaskRow]:
    """Returns a row per task that any variant was scored on."""
    results = [variant.evaluation for variant in record.variants if variant.evaluation]
    tasks = list(dict.fromkeys(task for result in results for task in result.scores))
    chance = {task: x for result in results for task, x in result.chance.items()}
    return [
        TaskRow(
            task,
            min(result.num_examples[task] for result in results if task in result.scores),
            chance.get(task),
            [row.scores.get(task) for row in rows],
        )
        for task in tasks
    ]


def versions(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Returns every package's versions over all stages; more than one is joined by `and`."""
    seen: dict[str, list[str]] = defaultdict(list)
    for manifest in manifests.values():
        for package, version in manifest.packages.items():
            if version not in seen[package]:
                seen[package].append(version)
    return {package: " and ".join(found) for package, found in seen.items()}
