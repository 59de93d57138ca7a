"""Where and on what the work runs: attention, ranks, latency grid."""

from typing import Literal

from pydantic import Field, PositiveInt

from sbcore.config.section import Section
from sbcore.types import Barrier


class AttentionConfig(Section):
    """Block-sparse attention (MoBA)."""

    block_size: PositiveInt = 32
    """Tokens in a key block, counted from the start of each sequence."""
    top_k: PositiveInt = 8
    """Key blocks per query token and query head, own block counted: the fixed budget k0."""
    backend: Literal["auto", "triton", "torch", "reference"] = "auto"
    """Implementation; auto is triton on a GPU and torch (tiles) on a CPU."""


class TopologyConfig(Section):
    """Ranks and what makes them wait."""

    num_ranks: PositiveInt = 2
    """Data-parallel ranks that torchrun starts."""
    barrier: Barrier = Barrier.STEP
    """step: one gradient synchronisation per step; micro: FSDP gathers in every micro-batch."""
    max_tokens: PositiveInt = 4096
    """Most packed tokens in a micro-batch; a longer sequence travels alone."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU when there is one for each rank."""


class LatencyGridConfig(Section):
    """The grid that the latency profile measures: forward and backward of the real layers."""

    lengths: list[PositiveInt] = [64, 128, 256, 512, 1024, 2048, 4096]
    """Sequence lengths, tokens, rising."""
    top_k: list[PositiveInt] = [1, 2, 4, 8, 16, 32]
    """Budgets, blocks, rising; points with more blocks than a sequence has are dense."""
    repeats: PositiveInt = 5
    """Measurements per point; the table holds their median, 20th and 80th percentile."""
    warmup: PositiveInt = 1
    """Unrecorded measurements before them."""
    max_extrapolation: float = Field(default=1.0, ge=1.0)
    """How far beyond the longest measured length a plan may predict, as a factor; 1 refuses."""
