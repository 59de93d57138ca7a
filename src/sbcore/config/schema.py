"""The whole configuration: the only source of defaults, of the JSON schema and of the reference.

Read this file first; each section has its own, one idea each.
"""

from typing import Annotated

from pydantic import Field, NonNegativeInt, StringConstraints, model_validator

from sbcore.config.compute import AttentionConfig, LatencyGridConfig, TopologyConfig
from sbcore.config.data import DataConfig, DemoConfig, LengthProfileConfig, SamplingConfig
from sbcore.config.method import VariantConfig
from sbcore.config.reporting import EvaluateConfig, TrackingConfig
from sbcore.config.section import Section
from sbcore.config.training import ModelConfig, TrainConfig
from sbcore.types import Barrier

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Config(Section):
    """A run: one data set, one model, and the variants compared on them."""

    run: Name = "demo"
    """Name of the folder under results/."""
    seed: NonNegativeInt = 0
    """Seed of the demo data, the sample order, the weights and the random balancer."""
    baseline: Name = "baseline"
    """The variant that speedups are relative to."""
    data: DataConfig = DataConfig()
    """Training data."""
    demo: DemoConfig = DemoConfig()
    """The demo's data set and base model; read only when data.files is empty."""
    lengths: LengthProfileConfig = LengthProfileConfig()
    """Length profile."""
    sampling: SamplingConfig = SamplingConfig()
    """Global batches."""
    model: ModelConfig = ModelConfig()
    """Model."""
    attention: AttentionConfig = AttentionConfig()
    """Attention."""
    topology: TopologyConfig = TopologyConfig()
    """Ranks and barriers."""
    latency: LatencyGridConfig = LatencyGridConfig()
    """Latency profile."""
    train: TrainConfig = TrainConfig()
    """Training."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Evaluation."""
    tracking: TrackingConfig = TrackingConfig()
    """Experiment tracking."""
    variants: Annotated[dict[Name, VariantConfig], Field(min_length=1)] = {
        "baseline": VariantConfig(max_sequences=1)
    }
    """The methods to compare, by name."""

    @model_validator(mode="after")
    def _pipelines_are_not_trained(self) -> "Config":
        if self.topology.barrier is Barrier.PIPELINE:
            raise ValueError(
                "topology.barrier = pipeline: training has no pipeline stages, only plans and "
                "simulations know them (sb simulate). use step or micro"
            )
        return self

    @model_validator(mode="after")
    def _baseline_is_a_variant(self) -> "Config":
        if self.baseline not in self.variants:
            names = ", ".join(self.variants)
            raise ValueError(
                f"baseline = {self.baseline}: not among the variants ({names}). name one of them"
            )
        return self
