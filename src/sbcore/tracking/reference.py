"""`tracking.json`: where the stages of a run find the pipeline's MLflow run."""

from dataclasses import asdict, dataclass
from pathlib import Path

from sbcore.artifacts import read_json, write_json
from sbcore.errors import SparseBalanceError

FILE_NAME = "tracking.json"


@dataclass(frozen=True, slots=True)
class TrackingReference:
    """The pipeline's run; the texts are empty when nothing is tracked."""

    enabled: bool
    uri: str
    experiment_id: str
    run_id: str
    config_digest: str


def untracked(config_digest: str) -> TrackingReference:
    """Returns the reference of a run that nothing tracks."""
    return TrackingReference(False, "", "", "", config_digest)


def write_reference(path: Path, reference: TrackingReference) -> None:
    """Writes the file, whole or not at all."""
    write_json(path, asdict(reference))


def read_reference(path: Path) -> TrackingReference:
    """Returns the file's content; raises SparseBalanceError when there is no such file."""
    anew = f"sb open-run --config {path.parent}/config/run.json --out {path.parent}"
    if not path.exists():
        raise SparseBalanceError(f"{path}: missing. open the pipeline's run: {anew}")
    try:
        return TrackingReference(**read_json(path))
    except TypeError:
        raise SparseBalanceError(
            f"{path}: not a tracking reference. delete it and open the pipeline's run anew: {anew}"
        ) from None
