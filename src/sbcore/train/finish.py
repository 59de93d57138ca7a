"""What a training leaves: a Hugging Face directory that knows the variant's attention, its account.

And what it says of its inputs where runs are tracked.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from sbcore.artifacts import write_json, write_manifest
from sbcore.config.stages import TrainStage
from sbcore.errors import SparseBalanceError
from sbcore.model.build import set_default_attention
from sbcore.model.export import export_model
from sbcore.tracking import Tracker
from sbcore.train.files import RunFiles
from sbcore.train.inputs import Arguments, Inputs, input_files
from sbcore.train.ranks import Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def track_inputs(tracker: Tracker, stage: TrainStage, inputs: Inputs, *, source: Path) -> None:
    """Tells the tracker the settings and the data set, which lies in ``source``."""
    tracker.params(stage.model_dump(mode="json"))
    tracker.dataset(
        "train",
        inputs.store.lengths,
        source=source,
        digest=inputs.store.digest,
        context="training",
    )


def save_model(
    model: "PreTrainedModel", stage: TrainStage, ranks: Ranks, *, source: Path | None, out: Path
) -> None:
    """Writes the model as a Hugging Face directory that knows the variant's attention.

    Raises:
        SparseBalanceError: It could not be written.
    """
    set_default_attention(model, stage.kind, stage.attention)
    try:
        export_model(model, out, config=stage.model, source=source, rank=ranks.rank)
    except (OSError, SafetensorError) as error:
        raise SparseBalanceError(
            f"{out}: not written: {error}. make room; the same command with --resume goes on from "
            "the newest checkpoint."
        ) from None


def write_account(
    summary: dict[str, Any],
    stage: TrainStage,
    arguments: Arguments,
    *,
    files: RunFiles,
    tracker: Tracker,
    seconds: float,
) -> None:
    """Writes summary.json and manifest.json, and tracks what they stand beside; for rank 0."""
    write_json(files.summary, summary)
    write_manifest(
        arguments.out / "manifest.json",
        stage="train",
        config=stage.model_dump_json(),
        inputs=input_files(arguments),
        device=summary["device"],
        backend=summary["backend"],
        seconds=seconds,
        mlflow_run_id=tracker.run_id,
    )
    tracker.artifact(files.summary)
    tracker.artifact(files.ledger_file)
