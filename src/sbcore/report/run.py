"""The report stage: gather, compare, draw, write."""

from collections.abc import Sequence
from pathlib import Path

from sbcore.artifacts import write_json, write_text
from sbcore.config.stages import ReportStage
from sbcore.report.charts.gallery import draw_gallery
from sbcore.report.charts.style import save_picture
from sbcore.report.collect import collect
from sbcore.report.compare import compare, summary
from sbcore.report.render import render


def report(config: ReportStage, *, run_dir: Path, out: Path) -> Sequence[Path]:
    """Writes summary.json, pictures and, last, index.html into out; returns their paths.

    Raises SparseBalanceError naming file and key when a file holds what it must not. Variants
    that have not finished are shown as such.
    """
    record = collect(config, run_dir)
    rows = compare(record)
    gallery = draw_gallery(record)
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.png"):  # of a variant that is no longer compared
        old.unlink()
    pictures = [save_picture(chart, out) for chart in gallery.charts]
    page, table = out / "index.html", out / "summary.json"
    write_json(table, summary(record, rows))
    write_text(page, render(record, rows, gallery))
    return [page, table, *pictures]
