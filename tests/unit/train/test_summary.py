import pytest
import torch

from sbcore.config.compute import AttentionConfig
from sbcore.config.schema import Config
from sbcore.config.stages import train_stage
from sbcore.train.summary import backend_name, closing_line, summarise

CPU = torch.device("cpu")


def stage():
    return train_stage(Config(), "baseline")


def row(step, step_ms, *, measured=True):
    return {
        "step": step,
        "loss": 4.0 - step,
        "grad_norm": 1.0,
        "num_tokens": 100,
        "step_ms": step_ms,
        "predicted_ms": 50.0,
        "imbalance": 1.5,
        "predicted_imbalance": 1.4,
        "coverage_delta": None if step % 2 else 2.0,
        "tune_ms": [0.4, 0.75],
        "plan_ms": [0.25, 0.0],
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


def test_losses_are_those_of_a_tenth_of_all_steps_and_times_those_of_measured_ones():
    rows = [row(step, 500.0 if step < 2 else 100.0 + step, measured=step > 1) for step in range(22)]
    rows[0] |= {"imbalance": 9.0, "predicted_imbalance": 9.0, "predicted_ms": 999.0}
    rows[21] |= {"predicted_ms": 90.0}
    summary = summarise(rows, stage(), device=CPU)
    assert (summary["loss_first"], summary["loss_final"]) == (3.5, 4.0 - 20.5)
    assert summary["num_tokens"] == 2200
    times = {"median": 111.5, "p20": 102 + 0.2 * 19, "p80": 102 + 0.8 * 19}  # of 102, 103 ... 121
    assert summary["step_time_ms"] == pytest.approx(times)
    assert (summary["imbalance"], summary["predicted_imbalance"]) == pytest.approx((1.5, 1.4))
    assert summary["predicted_ms"] == 50.0


def test_the_typical_step_is_the_median_not_the_mean():
    rows = [row(step, ms) for step, ms in enumerate((100.0, 100.0, 700.0))]
    assert summarise(rows, stage(), device=CPU)["step_time_ms"]["median"] == 100.0


@pytest.mark.parametrize(
    ("kind", "asked", "device_type", "backend"),
    [
        ("sparse", "auto", "cuda", "triton"),
        ("sparse", "auto", "cpu", "torch"),
        ("sparse", "reference", "cuda", "reference"),
        ("dense", "auto", "cuda", "sdpa"),
    ],
)
def test_the_backend_is_the_one_that_runs(kind, asked, device_type, backend):
    assert backend_name(kind, AttentionConfig(backend=asked), device_type) == backend


def test_on_a_gpu_work_is_a_share_of_the_peak(monkeypatch):
    name = "NVIDIA H100 80GB HBM3"
    monkeypatch.setattr("sbcore.train.summary.device_name", lambda device: name)
    work = {"useful_tflop": 98.9, "dense_equivalent_tflop": 197.8, "executed_tflop": 118.68}
    rows = [row(step, 1000.0) | work for step in range(4)]
    summary = summarise(rows, stage(), device=CPU)
    assert summary["mfu_useful"] == pytest.approx(0.05)  # two ranks
    assert summary["mfu_dense_equivalent"] == pytest.approx(0.1)
    assert summary["hfu"] == pytest.approx(0.06)


def test_skipped_steps_are_counted_and_left_out_of_the_loss():
    rows = [row(step, 100.0) for step in range(3)]
    rows[2] |= {"loss": None, "grad_norm": None}
    summary = summarise(rows, stage(), device=CPU)
    assert summary["num_skipped_steps"] == 1
    assert summary["loss_final"] is None
    assert "loss 4.000 -> not finite" in closing_line(summary)
