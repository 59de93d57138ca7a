"""Commands per variant and the report over all of them; training is `python -m sbcore.train`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbcore.cli.options import Out, StageConfig, TrackingFile
from sbcore.cli.stage import Outcome, Stage, run_stage

if TYPE_CHECKING:
    from rich.progress import Progress

    from sbcore.tracking import Tracker


def plan(
    *,
    config: StageConfig,
    index: Annotated[Path, typer.Option(help="index.parquet of the prepared data.")],
    latency: Annotated[Path, typer.Option(help="Folder of the latency profile.")],
    out: Out,
    tracking: TrackingFile = None,
) -> None:
    """Lay out every global batch of a variant over ranks and micro-batches."""
    from sbcore.config.load import load_stage
    from sbcore.config.stages import PlanStage

    settings = load_stage(config, PlanStage)

    def work(_: "Progress", __: "Tracker") -> Outcome:
        from sbcore.artifacts import read_json
        from sbcore.plan.planner import plan_variant

        plan_variant(settings, index=index, latency=latency, out=out)
        overall = read_json(out / "summary.json")["overall"]
        metrics = {key: overall[key] for key in ("imbalance", "optimality_gap")}
        return Outcome(
            f"{overall['num_steps']} steps, predicted imbalance {overall['imbalance']:.3f}, "
            f"{100 * overall['optimality_gap']:.1f} % above the lower bound",
            device="cpu",
            backend=settings.balancer.kind,
            metrics=metrics,
            artifacts=(out / "summary.json", out / "plan.parquet"),
        )

    inputs = {"index": index, "latency": latency / "latency.parquet"}
    stage = Stage("plan", settings.variant, inputs, out / "manifest.json", tracking)
    run_stage(stage, settings, work)


def report(
    *,
    config: StageConfig,
    run_dir: Annotated[Path, typer.Option(help="The run's folder.")],
    out: Out,
    tracking: TrackingFile = None,
) -> None:
    """Compare the variants in one page and one json file."""
    from sbcore.config.load import load_stage
    from sbcore.config.stages import ReportStage

    settings = load_stage(config, ReportStage)

    def work(_: "Progress", __: "Tracker") -> Outcome:
        from sbcore.artifacts import read_json
        from sbcore.report.run import report as write_report

        written = write_report(settings, run_dir=run_dir, out=out)
        rows = read_json(out / "summary.json")["variants"]
        return Outcome(
            f"{_count_trained(rows)} in {out}/index.html",
            device="cpu",
            backend="jinja2",
            artifacts=tuple(written),
        )

    stage = Stage("report", None, {}, out / "manifest.json", tracking)
    run_stage(stage, settings, work)


def _count_trained(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns how many variants a report compares, and which it has no training of."""
    untrained = [row["variant"] for row in rows if row["step_time_ms"] is None]
    if not untrained:
        return f"{len(rows)} variants"
    trained = len(rows) - len(untrained)
    return f"{trained} of {len(rows)} variants (not trained: {', '.join(untrained)})"


COMMANDS = (plan, report)
