"""Where and on what the work runs: attention, ranks, latency grid."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from sbcore.config.section import Section
from sbcore.types import Barrier


def _must_rise(values: list[int]) -> list[int]:
    if any(low >= high for low, high in pairwise(values)):
        rising = ", ".join(map(str, sorted(set(values))))
        raise ValueError(f"not rising. write [{rising}]")
    return values


Rising = Annotated[list[PositiveInt], Field(min_length=1), AfterValidator(_must_rise)]


class AttentionConfig(Section):
    """Block-sparse attention (MoBA)."""

    block_size: PositiveInt = 32
    """Tokens in a key block, counted from the start of each sequence. Backend triton takes 64, 128,
    256 and 512, torch and reference take any: the default is for a CPU."""
    top_k: PositiveInt = 8
    """Key blocks per query token and query head, own block counted: the fixed budget k0."""
    backend: Literal["auto", "triton", "torch", "reference"] = "auto"
    """Implementation; auto is triton on a GPU and torch (tiles) on a CPU."""


class TopologyConfig(Section):
    """Ranks and what makes them wait."""

    num_ranks: PositiveInt = 2
    """Data-parallel ranks that torchrun starts."""
    num_nodes: PositiveInt = 1
    """Hosts that share the ranks evenly; above 1 the pipeline trains in a Slurm job of so many,
    with one torchrun on each, and device must be named."""
    barrier: Barrier = Barrier.STEP
    """step: one gradient synchronisation per step; micro: FSDP gathers in every micro-batch;
    pipeline: 1F1B over num_stages, for plans and simulations only, not trained."""
    num_stages: PositiveInt = 1
    """Devices that share each rank's layers under barrier pipeline."""
    speed_factors: list[Annotated[float, Field(ge=0.25, le=8.0)]] = []
    """Each rank's real over its predicted time, 1.25 = a quarter slower; plans take multiples of
    1/32. Empty = all as predicted."""
    max_tokens: PositiveInt = 4096
    """Most packed tokens in a micro-batch; a longer sequence travels alone."""
    max_memory_gib: PositiveFloat | None = None
    """Most device memory of a micro-batch beyond the model's own, by the latency table, GiB; a
    sequence that passes it alone is refused. null = no limit."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU when there is one for each rank."""

    @model_validator(mode="after")
    def _is_one_machine(self) -> "TopologyConfig":
        if self.num_stages > 1 and self.barrier is not Barrier.PIPELINE:
            raise ValueError(
                f"num_stages = {self.num_stages}: stages need barrier: pipeline, not "
                f"{self.barrier}. leave num_stages out"
            )
        if self.num_ranks % self.num_nodes:
            raise ValueError(
                f"num_nodes = {self.num_nodes}: does not divide num_ranks = {self.num_ranks}. "
                "every node starts as many ranks, change one of the two"
            )
        if self.num_nodes > 1 and self.device == "auto":
            raise ValueError(
                f"num_nodes = {self.num_nodes}: device: auto cannot tell what to ask for on other "
                "nodes. name device: cuda or device: cpu"
            )
        if self.speed_factors and len(self.speed_factors) != self.num_ranks:
            raise ValueError(
                f"speed_factors = {self.speed_factors}: {len(self.speed_factors)} for "
                f"{self.num_ranks} ranks. give one for each, or none"
            )
        return self

    @property
    def ranks_per_node(self) -> int:
        """Ranks of one host."""
        return self.num_ranks // self.num_nodes


class LatencyGridConfig(Section):
    """The grid that the latency profile measures: forward and backward of the real layers."""

    lengths: Rising = [64, 128, 256, 512, 1024, 2048, 4096]
    """Sequence lengths, tokens, rising."""
    top_k: Rising = [1, 2, 4, 8, 16, 32]
    """Budgets, blocks, rising; points with more blocks than a sequence has are dense."""
    min_repeats: PositiveInt = 3
    """Measurements of a long point; the table holds their median, 20th and 80th percentile."""
    max_repeats: PositiveInt = 20
    """Measurements of a short point."""
    point_seconds: PositiveFloat = 0.1
    """A point is measured for about so long, within the two numbers above."""
    warmup_seconds: NonNegativeFloat = 0.02
    """Unrecorded work before each point, at least twice through."""
    micro_batch_seconds: PositiveFloat = 8.0
    """Time for whole micro-batches, run by all ranks as in training; the longest are left out when
    it does not suffice."""
    max_extrapolation: float = Field(default=1.0, ge=1.0)
    """How far beyond the longest measured length a plan may predict, as a factor; 1 refuses."""
    table: str | None = None
    """A measured table (config/latency/NAME.parquet, its .json beside it) to use in place of a
    measurement; refused unless device, model and blocks are the same. null = measure."""

    @model_validator(mode="after")
    def _repeats_are_in_order(self) -> "LatencyGridConfig":
        self.refuse_above("min_repeats", "max_repeats")
        return self
