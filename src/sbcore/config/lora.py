"""Low-rank adapters."""

from typing import Literal

from pydantic import Field, PositiveInt

from sbcore.config.section import Section

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class LoraConfig(Section):
    """Low-rank adapters, trained in float32 in place of the weights, which stay as they are."""

    rank: PositiveInt = 32
    """Rank of an adapter."""
    alpha: PositiveInt = 64
    """What adapters add is scaled by alpha / rank."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Share of an adapter's inputs that are zeroed in training."""
    targets: list[Target] = Field(
        default=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        min_length=1,
    )
    """Linear layers that get an adapter, in every decoder layer."""
    save: Literal["merged", "adapter"] = "merged"
    """merged: a whole model; adapter: the adapters alone, which need peft and model.path."""
