"""What `sb report` says when it is through."""

import sys

import pytest
from fabricated_run import FACTORS, report_stage

import sbcore.cli


def test_what_was_not_trained_is_not_counted(run_dir, monkeypatch, capsys):
    config, page = run_dir / "report.json", f"{run_dir}/report/index.html"
    config.write_text(report_stage().model_dump_json())
    words = {"--config": config, "--run-dir": run_dir, "--out": run_dir / "report"}
    called = ["sb", "report", *(str(word) for pair in words.items() for word in pair)]
    monkeypatch.setattr(sys, "argv", called)

    def said():
        with pytest.raises(SystemExit) as done:
            sbcore.cli.main()
        assert not done.value.code
        return capsys.readouterr().out

    assert f"report: {len(FACTORS)} variants in {page}" in said()
    (run_dir / "variants" / "sab" / "train" / "summary.json").unlink()
    assert f"report: 3 of 4 variants (not trained: sab) in {page}" in said()
