import time

import pytest
import torch

from sbcore.train.clock import HostClock, Span
from sbcore.train.device_clock import DeviceClock


def test_a_span_knows_its_waiting_and_parts_add_up():
    clock = HostClock()
    clock.start()
    for _ in range(2):
        with clock.part("data"):
            time.sleep(0.01)
    with clock.micro_batch():
        time.sleep(0.01)
        with clock.waiting():
            time.sleep(0.02)
    with clock.update():
        pass
    times = clock.finish().read()
    (span,) = times.spans
    assert 18 < span.waiting_ms < span.total_ms < times.step_ms
    assert abs(span.compute_ms - (span.total_ms - span.waiting_ms)) < 1e-9
    assert times.parts["data"] >= 19
    assert set(times.parts) == {"data", "optimizer"}
    assert span.start_ms >= times.parts["data"]


def test_spans_follow_each_other_and_each_knows_its_own_waiting(monkeypatch):
    ticks = iter([1000.0, 1010.0, 1012.0, 1017.0, 1030.0, 1040.0, 1041.0, 1044.0, 1050.0, 1060.0])
    monkeypatch.setattr("sbcore.train.clock.now_ms", lambda: next(ticks))
    clock = HostClock()
    clock.start()
    for _ in range(2):
        with clock.micro_batch(), clock.waiting():
            pass
    assert clock.finish().read().spans == [Span(10.0, 20.0, 5.0), Span(40.0, 10.0, 3.0)]


def test_times_of_a_step_stay_when_the_next_begins():
    clock = HostClock()
    clock.start()
    with clock.micro_batch():
        pass
    first = clock.finish()
    clock.start()
    assert len(first.read().spans) == 1
    assert clock.finish().read().spans == []


class OneMillisecond:
    """An event, one millisecond after every other."""

    def elapsed_time(self, _):
        return 1.0

    def synchronize(self):
        pass


@pytest.mark.parametrize("kind", [HostClock, DeviceClock])
def test_time_between_two_steps_counts_in_the_one_that_follows(kind, monkeypatch):
    monkeypatch.setattr("sbcore.train.device_clock._mark", OneMillisecond)
    clock = kind()
    for ms in (4e5, 6e5):
        clock.between("checkpoint", ms)
    first, second = (finished_step(clock) for _ in range(2))
    assert first.parts == {"checkpoint": 1e6}
    assert first.step_ms < 1e6
    assert second.parts == {}


def finished_step(clock):
    clock.start()
    return clock.finish().read()


def test_on_a_processor_all_deciding_is_a_gap():
    clock = HostClock()
    clock.start()
    with clock.deciding(), clock.part("tune"):
        time.sleep(0.01)
    parts = clock.finish().read().parts
    assert parts["gap"] >= parts["tune"] >= 9


@pytest.mark.gpu
@pytest.mark.parametrize(("work", "hidden"), [(0, False), (200, True)])
def test_a_gpu_at_work_hides_what_the_host_decides(work, hidden):
    clock = DeviceClock()
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    out = matrix @ matrix
    torch.cuda.synchronize()
    clock.start()
    for _ in range(work):  # 1.4 ms each on an H100
        torch.mm(matrix, matrix, out=out)
    with clock.deciding():
        time.sleep(0.02)
    gap = clock.finish().read().parts["gap"]
    assert gap < 2 if hidden else gap >= 19


@pytest.mark.gpu
def test_on_a_gpu_parts_follow_each_other_within_the_step():
    clock = DeviceClock()
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    out = matrix @ matrix
    torch.cuda.synchronize()
    clock.start()
    for _ in range(2):
        with clock.micro_batch():
            torch.mm(matrix, matrix, out=out)
            with clock.waiting():
                torch.mm(matrix, matrix, out=out)
    with clock.update():
        torch.mm(matrix, matrix, out=out)
    with clock.deciding(), clock.part("data"):
        time.sleep(0.02)
    times = clock.finish().read()
    spans = sum(span.compute_ms + span.waiting_ms for span in times.spans)
    follow = spans + times.parts["optimizer"] + times.parts["gap"]
    assert 0.9 * times.step_ms < follow < times.step_ms + 0.01
    assert times.parts["data"] >= 19
