"""Model, optimizer, checkpoints."""

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from sbcore.config.lora import LoraConfig
from sbcore.config.section import Section
from sbcore.config.shapes import ShapeName, spell_out

Beta = Annotated[float, Field(ge=0, lt=1)]


class ModelShape(Section):
    """A Qwen2-type model with random weights and tied embeddings."""

    hidden_size: PositiveInt = 64
    """Width of the residual stream."""
    intermediate_size: PositiveInt = 128
    """Width of the gated feed-forward layer."""
    num_hidden_layers: PositiveInt = 2
    """Layers."""
    num_attention_heads: PositiveInt = 1
    """Query heads."""
    num_key_value_heads: PositiveInt = 1
    """Key heads; divides the query heads."""
    head_dim: PositiveInt | None = None
    """Width of a head; null = hidden_size / num_attention_heads."""
    vocab_size: PositiveInt | None = None
    """Rows of the embedding; null = as many as the tokenizer has entries."""
    initializer_range: PositiveFloat = 0.04
    """Standard deviation of the initial weights."""
    rope_theta: PositiveFloat = 10_000.0
    """Base of the rotary position embedding."""

    @model_validator(mode="after")
    def _heads_fit(self) -> "ModelShape":
        heads, key_heads, dim = self.num_attention_heads, self.num_key_value_heads, self.head_dim
        if heads % key_heads:
            raise ValueError(
                f"num_key_value_heads = {key_heads}: does not divide num_attention_heads = "
                f"{heads}. change one of the two"
            )
        if dim is None and self.hidden_size % heads:
            raise ValueError(
                f"hidden_size = {self.hidden_size}: no multiple of num_attention_heads = {heads}. "
                "change one of the two, or give head_dim"
            )
        if (dim or self.hidden_size // heads) % 2:
            key, value = ("head_dim", dim) if dim else ("hidden_size", self.hidden_size)
            raise ValueError(
                f"{key} = {value}: heads of an odd width, which the rotary embedding cannot turn. "
                "make it even for each head"
            )
        return self


class ModelConfig(Section):
    """The model to train."""

    path: str | None = None
    """A Hugging Face directory of the Qwen2, Qwen3 or Llama families; null = the shape below,
    as the demo's base model when the demo data are used, else with random weights."""
    shape: Annotated[
        ModelShape, BeforeValidator(spell_out, json_schema_input_type=ShapeName | ModelShape)
    ] = ModelShape()
    """Read only when path is null: keys, or the name of a built-in shape."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type; the optimizer always keeps float32 weights."""
    lora: LoraConfig | None = None
    """Adapters to train in place of the weights; null = all weights are trained."""
    save_dtype: Literal["float32", "bfloat16"] | None = None
    """Type of the weights that training leaves; null = the compute type."""


class TrainConfig(Section):
    """Optimizer and checkpoints."""

    learning_rate: PositiveFloat = 2e-3
    """Peak learning rate of AdamW."""
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps with a rising learning rate."""
    decay_share: float = Field(default=0.3, ge=0, le=1)
    """Share of the steps, at the end, with a linearly falling learning rate."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decoupled weight decay."""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """Weight of the past in AdamW's moments, per step."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this global norm."""
    activation_checkpointing: Literal["none", "full", "selective"] = "none"
    """What the backward pass computes again: nothing, whole layers, or all of a layer but its
    attention. Budgets and choices are reused."""
    recompute_above_tokens: NonNegativeInt = 0
    """Micro-batches of no more tokens keep their activations: recomputing short ones costs host
    time and saves no memory that is short."""
    compile_layers: bool = False
    """Compile each layer around its attention (torch.compile, dynamic shapes)."""
    layers_per_shard: PositiveInt = 1
    """Layers whose weights travel in one collective: more cost less host time but more memory."""
    keep_gathered: bool = False
    """Weights stay gathered until the step's last micro-batch: fewer collectives, and memory for
    all weights in the compute type. Under barrier step they always do; gradients meet as before."""
    checkpoint_every_steps: NonNegativeInt = 0
    """Steps between checkpoints; 0 = only at the end."""
    keep_checkpoints: PositiveInt = 2
    """Checkpoints kept."""
    warmup_steps_unmeasured: NonNegativeInt = 3
    """First steps left out of step times, which pay for memory pools and caches."""
    max_nonfinite_steps: PositiveInt = 5
    """Steps in a row with a loss or gradient that is not finite before training stops; each is
    skipped and counted."""
    trace_steps: list[NonNegativeInt] = []
    """Steps of which every rank writes a Chrome trace."""
    coverage_every_steps: PositiveInt = 5
    """Steps between coverage measurements where budgets are k0; where a tuner moves them, every
    step that clamps measures."""
    threads_per_rank: PositiveInt = 1
    """Host threads of each rank."""
