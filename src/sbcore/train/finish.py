"""What a training leaves: a Hugging Face directory that knows the variant's attention."""

from pathlib import Path
from typing import TYPE_CHECKING

from sbcore.config.stages import TrainStage
from sbcore.model.build import set_default_attention
from sbcore.model.export import export_model
from sbcore.train.ranks import Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def save_model(
    model: "PreTrainedModel", stage: TrainStage, ranks: Ranks, *, source: Path | None, out: Path
) -> None:
    """Writes the model as a Hugging Face directory that knows the variant's attention."""
    set_default_attention(model, stage.kind, stage.attention)
    export_model(model, out, config=stage.model, source=source, rank=ranks.rank)
