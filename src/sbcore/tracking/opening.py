"""Opens the pipeline's run before all stages.

It goes first, alone: several processes that open an empty sqlite store together fail.
"""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sbcore.artifacts import digest_text
from sbcore.config.stages import RunStage
from sbcore.errors import SparseBalanceError
from sbcore.tracking.guard import one_line, warn
from sbcore.tracking.reference import (
    FILE_NAME,
    TrackingReference,
    read_reference,
    untracked,
    write_reference,
)
from sbcore.tracking.stage import run_tags
from sbcore.tracking.store import NOTE, log_params, open_client

if TYPE_CHECKING:
    from mlflow import MlflowClient


_DESCRIPTION = (
    "A run per pipeline; below it one per stage (`kind = stage`) and, when it is through, one per "
    "variant (`kind = variant`), which are the ones to compare."
)


def open_run(config: RunStage, *, out: Path) -> TrackingReference:
    """Opens the pipeline's run and writes its ids to out (the run's folder) / tracking.json.

    The same configuration keeps its run, another one gets a new run. The store's schema and the
    experiment are made here (6-8 s the first time on sqlite). A store that fails is one warning,
    and the stages run untracked.

    Raises:
        SparseBalanceError: tracking.enabled is on and mlflow is not installed.
    """
    path, digest = out / FILE_NAME, digest_text(config.model_dump_json())
    reference = untracked(digest)
    if _wanted(config):
        uri = _uri(config, out)
        try:
            reference = _kept(path, uri, digest) or _new(config, uri, out, digest)
        # Whatever a tracking library throws, the stages can run without it.
        except Exception as failure:
            warn(f"{uri}: {one_line(failure)}. this run is not tracked.")
    write_reference(path, reference)
    return reference


def _wanted(config: RunStage) -> bool:
    if config.tracking.enabled == "off":
        return False
    if importlib.util.find_spec("mlflow") is not None:
        return True
    if config.tracking.enabled == "on":
        raise SparseBalanceError(
            "configuration: tracking.enabled = on: mlflow is not installed. "
            "pip install mlflow, or set it to auto."
        )
    warn("mlflow is not installed. this run is not tracked.")
    return False


def _uri(config: RunStage, out: Path) -> str:
    database = (out.parent / "mlflow" / "mlflow.db").resolve()
    return config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database}"


def _kept(path: Path, uri: str, digest: str) -> TrackingReference | None:
    """Returns the run opened earlier for this very configuration, running again."""
    if not path.exists():
        return None
    reference = read_reference(path)
    if not reference.enabled or (reference.config_digest, reference.uri) != (digest, uri):
        return None
    open_client(uri).update_run(reference.run_id, status="RUNNING")
    return reference


def _new(config: RunStage, uri: str, out: Path, digest: str) -> TrackingReference:
    out.parent.joinpath("mlflow").mkdir(parents=True, exist_ok=True)
    client = open_client(uri)
    experiment_id = _experiment_id(client, config.tracking.experiment, uri=uri, out=out)
    tags = run_tags("pipeline", None) | {"kind": "pipeline", "config_digest": digest}
    run_id = client.create_run(experiment_id, run_name=config.run, tags=tags).info.run_id
    values = config.config.model_dump(mode="json")
    client.log_dict(run_id, values, "config.json")
    log_params(client, run_id, values)
    return TrackingReference(True, uri, experiment_id, run_id, digest)


def _experiment_id(client: "MlflowClient", name: str, *, uri: str, out: Path) -> str:
    """Returns the experiment's id; a new one in a local store keeps its artifacts beside it.

    Left to itself MLflow puts them below the working directory. A server decides by itself.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    local = urlsplit(uri).scheme not in ("http", "https")
    artifacts = (out.parent / "mlflow" / "artifacts" / name).resolve().as_uri()
    place = artifacts if local else None
    return str(client.create_experiment(name, artifact_location=place, tags={NOTE: _DESCRIPTION}))
