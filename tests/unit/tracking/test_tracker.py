"""The tracker's members without a store: buffers, failures, what off means."""

from types import SimpleNamespace

import numpy as np
import pytest

from sbcore.tracking import NoTracker, store
from sbcore.tracking.guard import Guard
from sbcore.tracking.store import MlflowTracker, chunks, flatten


class RecordingClient:
    """Keeps what a tracker sends."""

    def __init__(self):
        self.batches, self.status, self.tags = [], None, {}

    def search_runs(self, *_, **__):
        return []

    def create_run(self, experiment_id, *, run_name, tags):
        self.tags = tags
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def log_batch(self, run_id, *, metrics=(), params=()):
        self.batches.append(list(metrics) or list(params))

    def set_terminated(self, run_id, status):
        self.status = status


@pytest.fixture
def client(monkeypatch):
    recording = RecordingClient()
    monkeypatch.setattr(store, "open_client", lambda uri: recording)
    return recording


@pytest.fixture
def tracker(client):
    opened = MlflowTracker("http://unused", experiment_id="0", parent_run_id="p")
    opened.start("train/sab", {"stage": "train"})
    return opened


def test_metrics_wait_until_a_batch_is_full_and_none_exceeds_the_servers_limit(tracker, client):
    for step in range(333):
        tracker.metrics({"a": 1.0, "b": 2.0, "c": 3.0}, step=step)
    assert client.batches == []
    tracker.metrics({"a": 1.0, "b": 2.0, "c": 3.0}, step=333)
    tracker.end("FINISHED", error=None)
    assert [len(batch) for batch in client.batches] == [1000, 2]
    assert client.status == "FINISHED"


def test_old_numbers_are_sent_before_the_batch_is_full(tracker, client, monkeypatch):
    tracker.metrics({"a": 1.0}, step=0)
    monkeypatch.setattr(store, "_FLUSH_SECONDS", -1.0)
    tracker.metrics({"a": 2.0}, step=1)
    assert [[metric.value for metric in batch] for batch in client.batches] == [[1.0, 2.0]]


def test_unmeasured_numbers_are_left_out(tracker, client):
    tracker.metrics({"loss": 1.5, "coverage_delta": None}, step=4)
    tracker.end("FINISHED", error=None)
    (metric,) = client.batches[0]
    assert (metric.key, metric.value, metric.step) == ("loss", 1.5, 4)


def test_params_are_flat_and_sent_in_batches_the_server_takes(tracker, client):
    tracker.params({"tuner": {"kind": "anchor"}} | {f"key{i}": i for i in range(150)})
    assert [len(batch) for batch in client.batches] == [100, 51]
    assert (client.batches[0][0].key, client.batches[0][0].value) == ("tuner.kind", "anchor")


def test_flatten_writes_lists_as_json_and_keeps_null():
    values = {"a": {"b": {"c": [1, 2]}}, "d": None, "e": "text"}
    assert dict(flatten(values)) == {"a.b.c": "[1, 2]", "d": "null", "e": "text"}


def test_chunks_keep_every_entry_in_order():
    assert list(chunks([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]


def test_guard_warns_once_and_stops_calling(capsys, tmp_path):
    calls = []

    class Dead(NoTracker):
        def metrics(self, values, *, step):
            calls.append(step)
            raise ConnectionError("refused\nwith a second line")

    guard = Guard(Dead())
    for step in range(5):
        guard.metrics({"a": 1.0}, step=step)
    guard.end("FINISHED", error=None)
    warning = capsys.readouterr().err
    assert calls == [0]
    assert warning.count("\n") == 1
    assert warning.startswith("warning: tracking: stopped: ConnectionError: refused.")


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.start("train", {}),
        lambda t: t.params({"a": 1}),
        lambda t: t.metrics({"a": 1.0}, step=0),
        lambda t: t.artifact("no such file"),
        lambda t: t.figure(None, name="x.png"),
        lambda t: t.dataset("d", np.arange(3), source="s", digest="0", context="training"),
        lambda t: t.end("FINISHED", error=None),
    ],
)
def test_no_call_of_a_broken_tracker_reaches_the_stage(call, capsys):
    # Never started: every method of the member itself raises.
    call(Guard(MlflowTracker("no-such-scheme://x", experiment_id="0", parent_run_id="p")))
    assert capsys.readouterr().err.count("warning: tracking: stopped: ") <= 1


def test_untracked_runs_have_no_id():
    tracker = NoTracker()
    tracker.start("train", {})
    tracker.metrics({"a": 1.0}, step=0)
    tracker.end("FINISHED", error=None)
    assert tracker.run_id is None
