"""Trainers that take no time: rows as training makes them, a step late."""

from types import SimpleNamespace


def make_row(step, *, step_ms, **others):
    values = {
        "step": step,
        "step_ms": step_ms,
        "predicted_ms": 0.9 * step_ms,
        "num_tokens": 1000,
        "imbalance": 1.25,
        "predicted_imbalance": 1.2,
        "coverage_delta": None,
        "compute_ms": [0.8 * step_ms, 0.6 * step_ms],
        "waiting_ms": [0.1 * step_ms, 0.3 * step_ms],
        "data_ms": [1.0, 0.6],
        "plan_ms": [0.3, 0.5],
        "tune_ms": [1.5, 0.2],
        "gap_ms": [0.1, 0.05],
        "optimizer_ms": [1.9, 2.0],
        "useful_tflop": 0.2,
        "dense_equivalent_tflop": 0.4,
        "executed_tflop": 0.3,
        "loss": 5.0,
        "measured": True,
        "grad_norm": 1.0,
    }
    return values | others


class FakeTrainer:
    """Takes ``times[step]`` milliseconds for a step; writes its name into the log when asked."""

    def __init__(self, name, times, log, **others):
        self.name, self.times, self.log, self.others = name, times, log, others
        self.pending = None

    def run_step(self, step):
        self.log.append((step, self.name))
        before, self.pending = self.pending, step
        return None if before is None else self._row(before)

    def drain(self):
        last, self.pending = self.pending, None
        return None if last is None else self._row(last)

    def _row(self, step):
        return SimpleNamespace(row=make_row(step, step_ms=self.times[step], **self.others))
