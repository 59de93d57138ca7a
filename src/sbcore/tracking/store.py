"""The MLflow member: a run under the pipeline's run, written through the client alone.

The fluent interface (`mlflow.start_run`) keeps global state; the client does not. A single
metric costs 26 ms on sqlite, a batch of 1,000 costs 0.4 s, so numbers are buffered.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sbcore.types import IntArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

MAX_METRICS = 1000
"""Most metrics that the server takes in one call."""
MAX_ENTRIES = 100
"""Most params or tags that the server takes in one call."""
_FLUSH_SECONDS = 30.0
"""Oldest number in the buffer, so that a long training can be watched."""
NOTE = "mlflow.note.content"
"""Tag that MLflow shows as a run's or an experiment's description."""
_DIGEST_CHARS = 36
"""Longest data set digest that MLflow stores."""


EntryT = TypeVar("EntryT")


def open_client(uri: str) -> "MlflowClient":
    """Returns a client that gives a dead server up within seconds instead of minutes."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from mlflow import MlflowClient

    # It shows what it raises with a traceback of its own first; who catches it says one line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=uri)


class MlflowTracker:
    """One child run; a repeated stage is a new run that supersedes the last one."""

    def __init__(self, uri: str, *, experiment_id: str, parent_run_id: str) -> None:
        self._uri = uri
        self._experiment_id = experiment_id
        self._parent_run_id = parent_run_id
        self._run_id: str | None = None
        self._buffer: list[tuple[str, float, int, int]] = []
        self._flushed_at = time.monotonic()

    @property
    def run_id(self) -> str | None:
        """The run's id, once it is open."""
        return self._run_id

    def start(self, name: str, tags: Mapping[str, str]) -> None:
        """Opens the run; earlier runs of this name stay, marked as not current."""
        self._client = open_client(self._uri)
        earlier = self._earlier(name)
        lineage = {"attempt": str(len(earlier) + 1), "current": "true"}
        if earlier:
            lineage["supersedes"] = earlier[0].info.run_id
        run = self._client.create_run(
            self._experiment_id,
            run_name=name,
            tags={**tags, **lineage, "mlflow.parentRunId": self._parent_run_id},
        )
        self._run_id = run.info.run_id
        for old in earlier:
            self._retire(old)

    def params(self, values: Mapping[str, object]) -> None:
        """Writes settings; MLflow refuses a second value for a name."""
        log_params(self._client, self._open_run_id(), values)

    def metrics(self, values: Mapping[str, float | None], *, step: int) -> None:
        """Buffers numbers; writes them when a batch is full or 30 s old (then 0.1-0.4 s)."""
        now = int(time.time() * 1000)
        self._buffer += [(key, x, now, step) for key, x in values.items() if x is not None]
        aged = time.monotonic() - self._flushed_at > _FLUSH_SECONDS
        if aged or len(self._buffer) >= MAX_METRICS:
            self._flush()

    def artifact(self, path: Path) -> None:
        """Copies a file to the run's artifacts."""
        self._client.log_artifact(self._open_run_id(), str(path))

    def figure(self, figure: "Figure", *, name: str) -> None:
        """Adds a matplotlib figure to the run's artifacts."""
        self._client.log_figure(self._open_run_id(), figure, name)

    def dataset(
        self, name: str, lengths: IntArray, *, source: Path, digest: str, context: str
    ) -> None:
        """Names the data by its sha256 (rows are sequences, elements are tokens)."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = {"num_rows": len(lengths), "num_elements": int(lengths.sum())}
        data = Dataset(
            name=name,
            digest=digest[:_DIGEST_CHARS],
            source_type="local",
            source=json.dumps({"uri": str(source)}),
            profile=json.dumps(profile),
        )
        tags = [InputTag("mlflow.data.context", context), InputTag("sha256", digest)]
        self._client.log_inputs(self._open_run_id(), [DatasetInput(data, tags)])

    def end(self, status: str, *, error: str | None) -> None:
        """Writes the buffer, then the status."""
        self._flush()
        if error is not None:
            self._client.set_tag(self._open_run_id(), "error", error)
        self._client.set_terminated(self._open_run_id(), status)

    def _open_run_id(self) -> str:
        assert self._run_id is not None, "start comes first"
        return self._run_id

    def _flush(self) -> None:
        from mlflow.entities import Metric

        for chunk in chunks(self._buffer, MAX_METRICS):
            self._client.log_batch(self._open_run_id(), metrics=[Metric(*row) for row in chunk])
        self._buffer.clear()
        self._flushed_at = time.monotonic()

    def _earlier(self, name: str) -> list[Any]:
        """Returns the runs of this name under the same parent, newest first."""
        parent = f"tags.`mlflow.parentRunId` = '{self._parent_run_id}'"
        return list(
            self._client.search_runs(
                [self._experiment_id],
                f"{parent} and tags.`mlflow.runName` = '{name}'",
                order_by=["attributes.start_time DESC"],
            )
        )

    def _retire(self, run: Any) -> None:
        self._client.set_tag(run.info.run_id, "current", "false")
        if run.info.status == "RUNNING":  # its process was killed, nobody else can say so
            self._client.set_terminated(run.info.run_id, "KILLED")


def log_params(client: "MlflowClient", run_id: str, values: Mapping[str, object]) -> None:
    """Writes settings to a run, nested ones under dotted names."""
    from mlflow.entities import Param

    entries = [Param(name, text) for name, text in flatten(values)]
    for chunk in chunks(entries, MAX_ENTRIES):
        client.log_batch(run_id, params=chunk)


def flatten(values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yields dotted names and texts; lists become json, mappings are entered."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", text) for inner, text in flatten(value))
        else:
            yield key, value if isinstance(value, str) else json.dumps(value)


def chunks(entries: Sequence[EntryT], size: int) -> Iterator[list[EntryT]]:
    """Yields the entries in order, at most size at a time."""
    for start in range(0, len(entries), size):
        yield list(entries[start : start + size])
