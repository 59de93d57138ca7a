"""Code is followed from a stage through imports and tables of lazy names."""

from sbcore.workflow.code import code_digest, reachable


def test_imports_are_followed() -> None:
    found = reachable("sbcore.train.__main__")
    assert {"sbcore.plan.read", "sbcore.attention.interface", "sbkernels.moba"} <= found
    assert "sbcore.report.run" not in found


def test_tables_of_names_are_followed() -> None:
    assert "sbcore.plan.balancers.sab" in reachable("sbcore.plan.planner")
    assert "sbcore.tune.anchor" in reachable("sbcore.train.__main__")


def test_what_changes_no_result_is_left_out() -> None:
    found = reachable("sbcore.train.__main__")
    assert not any(name.startswith(("sbcore.config", "sbcore.tracking")) for name in found)


def test_digests_differ() -> None:
    assert code_digest("sbcore.data.prepare") != code_digest("sbcore.plan.planner")
