import json

import pytest

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def report(forked, workers, tmp_path_factory):
    path = tmp_path_factory.mktemp("gradients") / "report.json"
    forked(workers / "gradients.py", path)
    return json.loads(path.read_text())


def test_any_plan_barrier_and_recomputation_gives_the_same_gradient(report):
    assert len(report) == 36
    for case, facts in report.items():
        assert facts["error"] < 1e-5, (case, facts)


def test_any_plan_and_barrier_gives_the_same_loss(report):
    losses = [facts["loss"] for facts in report.values()]
    assert max(losses) - min(losses) < 1e-5
    assert min(losses) > 1
    assert all(facts["norm"] > 1e-2 for facts in report.values())


def test_the_norm_that_is_told_is_that_of_all_ranks_together(report):
    for case, facts in report.items():
        assert facts["norm_told"] == pytest.approx(facts["norm"], rel=1e-5), case


def test_the_loss_falls_down_the_gradient_as_fast_as_it_says(report):
    """A gradient averaged over ranks would say half of it, whatever the plan."""
    found = [facts["decrease"] for facts in report.values() if facts["decrease"] is not None]
    assert len(found) == 6
    assert found == pytest.approx([1.0] * 6, rel=0.02)
