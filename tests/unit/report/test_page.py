"""The page: whole, self-contained, escaped, and honest about what is missing."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from fabricated_run import FACTORS, report_stage

from sbcore.report.run import report


class Page(HTMLParser):
    """Tags, ids, references and visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.references, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                self.references.append(value)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def make_report(run_dir):
    files = report(report_stage(), run_dir=run_dir, out=run_dir / "report")
    return files, Page((run_dir / "report" / "index.html").read_text())


@pytest.fixture(scope="module")
def finished(pristine_run, tmp_path_factory):
    folder = shutil.copytree(pristine_run, tmp_path_factory.mktemp("finished") / "fabricated")
    return folder, *make_report(folder)


def test_all_files_are_there_and_no_half_written_one(finished):
    folder, files, _ = finished
    names = {path.name for path in files}
    assert {"index.html", "summary.json", "step-times.png", "timeline-sab_dst.png"} <= names
    assert {path.name for path in (folder / "report").iterdir()} == names
    assert all(path.stat().st_size > 500 for path in files)


def test_nothing_is_loaded_from_outside(finished):
    folder, _, page = finished
    text = (folder / "report" / "index.html").read_text()
    assert page.references
    assert all(reference.startswith("#") for reference in page.references)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert not re.search(r"https?:|@import|url\((?!#)|//[a-z]", text)


def test_ids_are_unique_and_every_reference_has_its_target(finished):
    folder, _, page = finished
    text = (folder / "report" / "index.html").read_text()
    assert len(page.ids) == len(set(page.ids))
    inside = {reference[1:] for reference in page.references}
    inside |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert inside <= set(page.ids)


def test_every_colour_of_a_drawing_follows_the_theme(finished):
    folder, _, _ = finished
    text = (folder / "report" / "index.html").read_text()
    style, body = text.split("</style>", 1)
    used = set(re.findall(r"var\(--([\w-]+)\)", text))
    light, dark = style.split("prefers-color-scheme: dark", 1)
    for name in used - {"prose", "sans", "mono"}:
        assert f"--{name}:" in light, name
        assert f"--{name}:" in dark, name
    # Black and white are matplotlib's own defaults: they would not follow the theme.
    assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", body)) == set()


def test_the_page_says_what_the_summary_says(finished):
    folder, _, page = finished
    rows = json.loads((folder / "report" / "summary.json").read_text())["variants"]
    assert "sab_dst trains 1.43 times as fast as baseline" in page.text
    for row in rows:
        assert f"{row['speedup']:.2f}" in page.text
        assert f"{row['step_time_ms']['median']:,.0f}" in page.text
        assert f"{row['score_mean']:.1f}" in page.text
    for task in rows[0]["scores"]:
        assert task in page.text
    assert "The files show nothing suspicious" in page.text
    assert "baseline, sab, dense" in page.text  # not tuned


def test_text_from_files_is_escaped(run_dir):
    attack = '"><img src=http://x onerror=alert(1)><script>alert(2)</script>{{ 7 * 7 }}'
    for name in FACTORS:
        path = run_dir / "variants" / name / "train" / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"device": attack}))
    path = run_dir / "variants" / "sab" / "eval" / "result.json"
    result = json.loads(path.read_text())
    tasks = {attack: 1.0}
    changes = {"scores": tasks, "num_examples": tasks, "num_available": tasks, "chance": tasks}
    path.write_text(json.dumps(result | changes))
    _, page = make_report(run_dir)
    assert attack in page.text
    assert not {"img", "script"} & set(page.tags)


def test_a_variants_name_cannot_leave_the_page_or_the_folder(run_dir):
    from sbcore.config.stages import ReportStage

    name = 'x"><b id=y>$a_b$ ..%'
    shutil.copytree(run_dir / "variants" / "sab_dst", run_dir / "variants" / name)
    stage = report_stage(("baseline", name))
    files = report(stage, run_dir=run_dir, out=run_dir / "report")
    page = Page((run_dir / "report" / "index.html").read_text())
    assert isinstance(stage, ReportStage)
    assert name in page.text
    assert "y" not in page.ids
    assert {path.parent for path in files} == {run_dir / "report"}


def test_missing_variants_are_shown_as_such(run_dir):
    shutil.rmtree(run_dir / "variants" / "sab")
    (run_dir / "variants" / "dense" / "train" / "summary.json").unlink()
    _, page = make_report(run_dir)
    assert "sab no plan, train, evaluate" in page.text
    assert "dense is unfinished: no results of train." in page.text
    assert "The files show nothing suspicious" not in page.text


def test_an_empty_run_gives_a_page_that_says_so(tmp_path):
    _, page = make_report(tmp_path / "fabricated")
    assert "Nothing to compare yet" in page.text
    assert "No stage has left a manifest." in page.text


def test_pictures_of_variants_no_longer_compared_are_removed(run_dir):
    stale = run_dir / "report" / "timeline-gone.png"
    stale.parent.mkdir()
    stale.write_bytes(b"old")
    make_report(run_dir)
    assert not stale.exists()


def test_nine_variants_stay_readable(run_dir):
    names = list(FACTORS)
    for i in range(5):
        name = f"sab_dst_{i}"
        shutil.copytree(run_dir / "variants" / "sab_dst", run_dir / "variants" / name)
        names.append(name)
    files = report(report_stage(tuple(names)), run_dir=run_dir, out=run_dir / "report")
    text = (run_dir / "report" / "index.html").read_text()
    assert text.count("<details>") == 6, "budgets of many variants are folded"
    assert {"coverage.png", "bubbles.png", "coverage-foretold.png"} <= {path.name for path in files}


def test_the_budgets_of_a_single_tuned_variant_are_open(finished):
    folder, _, _ = finished
    assert (folder / "report" / "index.html").read_text().count("<details open>") == 1
