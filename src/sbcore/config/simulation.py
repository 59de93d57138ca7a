"""What `sb simulate` assumes where it is told nothing: the paper's setting and a law of coverage.

No part of a run's configuration: nothing of it is measured, and no stage reads it.
"""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from sbcore.config.section import Section


class CoverageLaw(Section):
    """The routing mass of a query's j-th best block falls like j^-alpha."""

    alpha: PositiveFloat = 1.0
    """Mean of alpha over layers and sequences; larger = the mass sits in fewer blocks."""
    alpha_layer_std: NonNegativeFloat = 0.25
    """Standard deviation of alpha over layers."""
    alpha_sequence_std: NonNegativeFloat = 0.15
    """Standard deviation of alpha over sequences."""

    @property
    def sentence(self) -> str:
        """The law in words."""
        return (
            f"routing mass of the j-th best block ~ j^-alpha, alpha = {self.alpha:g} "
            f"+- {self.alpha_layer_std:g} by layer +- {self.alpha_sequence_std:g} by sequence"
        )


class SimulationConfig(Section):
    """A simulated comparison of variants."""

    seed: NonNegativeInt = 0
    """Seed of the sample order, the random balancer and the law's draws."""
    num_steps: PositiveInt = 50
    """Most global batches that are replayed; whole ones only."""
    num_learning_steps: PositiveInt = 10
    """Global batches that teach tuners the coverage curves beforehand."""
    block_size: PositiveInt = 256
    """Tokens in a key block; a latency profile brings its own."""
    top_k: PositiveInt = 32
    """The fixed budget k0, blocks; a latency profile brings its own."""
    max_tokens: PositiveInt = 65_536
    """Most packed tokens in a micro-batch; a latency profile brings its own. A longer sequence
    travels alone."""
    max_extrapolation: float = Field(default=1.0, ge=1.0)
    """How far beyond a table's longest length to predict, as a factor; 1 refuses, as in plans."""
    look_ahead: PositiveInt = 1
    """Global batches regrouped together by length: a change of sampling; 1 = off."""
    token_band: float = Field(default=0.25, gt=0, lt=1)
    """Most that a regrouped global batch's tokens may be from the mean, as a share."""
    coverage: CoverageLaw = CoverageLaw()
    """What tuners are told of coverage, since nothing was measured."""
