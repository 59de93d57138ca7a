import pytest
import torch

from sbcore.config.schema import Config
from sbcore.config.stages import train_stage
from sbcore.errors import SparseBalanceError
from sbcore.train.finish import closing_line, summarise

CPU = torch.device("cpu")


def stage():
    return train_stage(Config(), "baseline")


def row(step, step_ms, *, measured=True):
    return {
        "step": step,
        "loss": 4.0 - step,
        "num_tokens": 100,
        "step_ms": step_ms,
        "predicted_ms": 50.0,
        "imbalance": 1.5,
        "predicted_imbalance": 1.4,
        "coverage_delta": None if step % 2 else 2.0,
        "tune_ms": 1.0,
        "plan_ms": 0.0,
        "waiting_ms": [0.0, 20.0],
        "measured": measured,
    }


def test_warm_up_steps_do_not_count():
    rows = [row(0, 1000.0, measured=False), row(1, 100.0), row(2, 100.0), row(3, 100.0)]
    summary = summarise(rows, stage(), device=CPU)
    assert summary["step_time_ms"] == {"median": 100.0, "p20": 100.0, "p80": 100.0}
    assert summary["tokens_per_s"] == pytest.approx(1000.0)
    assert summary["num_measured_steps"] == 3
    assert summary["loss_first"] == 4.0
    assert summary["waiting_pct"] == pytest.approx(10.0)
    assert summary["overhead_pct"] == pytest.approx(1.0)
    assert summary["coverage_delta"] == 2.0
    assert "4 steps, 100 ms per step (median), loss 4.000 -> 1.000" in closing_line(summary)


def test_a_run_without_measured_steps_says_so():
    with pytest.raises(SparseBalanceError, match="none is left to measure"):
        summarise([row(0, 1.0, measured=False)], stage(), device=CPU)
