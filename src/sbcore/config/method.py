"""Methods that are compared: a balancer, a tuner and an attention make a variant."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from sbcore.config.section import Section

Cost = Literal["tokens", "squared", "analytic", "measured"]


class CostedBalancer(Section):
    """What balancers share that weigh sequences by a cost of their choice."""

    cost: Cost = "measured"
    """What a sequence weighs: its tokens, their square, the formula fitted to the latency table,
    or the table itself."""


class RandomBalancer(Section):
    """Sequences in random order, dealt out in turn."""

    kind: Literal["random"] = "random"


class LengthBalancer(Section):
    """LBB: length-based batching; sorted by length, longest first onto the emptiest rank."""

    kind: Literal["length"] = "length"


class TokensBalancer(CostedBalancer):
    """LPT as public trainers have it: heaviest onto the lightest rank, blind to the barrier."""

    kind: Literal["tokens"] = "tokens"
    cost: Cost = "tokens"
    """What a sequence weighs: its tokens, their square, the formula fitted to the latency table,
    or the table itself."""


class KarmarkarKarpBalancer(CostedBalancer):
    """Largest differencing method on predicted latency; slow above 64 ranks."""

    kind: Literal["karmarkar_karp"] = "karmarkar_karp"


class MultifitBalancer(CostedBalancer):
    """Bisects the smallest load that first-fit packing of predicted latency can keep."""

    kind: Literal["multifit"] = "multifit"
    bisections: PositiveInt = 10
    """Halvings of the interval that holds the load; 10 end within 0.1 % of it."""


class SabBalancer(CostedBalancer):
    """SAB: packed by predicted latency at the budgets in use, then improved by local search."""

    kind: Literal["sab"] = "sab"
    local_search_rounds: NonNegativeInt = 50
    """Most moves or swaps tried after the greedy assignment."""
    restarts: NonNegativeInt = 30
    """Most restarts of that search where the plan is still 0.5 % above the lower bound."""
    online: bool = False
    """Lay out each global batch again during training, with the budgets that tuning uses lately."""
    budget_decay: float = Field(default=0.9, ge=0, lt=1)
    """Weight of the past in the moving averages of those budgets, per step; read when online."""

    @model_validator(mode="after")
    def _budgets_need_latency(self) -> "SabBalancer":
        if self.online and self.cost != "measured":
            raise ValueError(
                f"online = true: needs the latency table, but cost = {self.cost}. "
                "use cost: measured"
            )
        return self


BalancerConfig = Annotated[
    RandomBalancer
    | LengthBalancer
    | TokensBalancer
    | KarmarkarKarpBalancer
    | MultifitBalancer
    | SabBalancer,
    Field(discriminator="kind"),
]


class FixedTuner(Section):
    """Every sequence keeps the budget k0 in every layer."""

    kind: Literal["fixed"] = "fixed"


class MovingTuner(Section):
    """What all tuners share that move budgets: how far, and what they expect of coverage."""

    floor: PositiveInt = 1
    """Smallest top_k; holds also after the clamp in the layers."""
    cap: NonNegativeInt = 0
    """Largest top_k; 0 = all blocks; holds also after the clamp in the layers."""
    clamp_every_steps: PositiveInt = 1
    """Steps between those whose layers measure their own curves and clamp budgets to them. In
    between budgets hold as decided, within p by the averages: cheaper, and blind to a batch that
    covers otherwise."""
    ema_decay: float = Field(default=0.9, ge=0, lt=1)
    """Weight of the past in the coverage model's moving average, per observed step."""

    @model_validator(mode="after")
    def _floor_is_below_cap(self) -> "MovingTuner":
        if 0 < self.cap < self.floor:
            raise ValueError(f"cap = {self.cap}: below floor = {self.floor}. raise cap")
        return self


class BoundedTuner(MovingTuner):
    """A tuner with one bound for the whole run."""

    p: float = Field(default=0.1, gt=0, lt=1)
    """Most coverage that a layer may lose or gain against k0, 0..1."""


class AnchorTuner(BoundedTuner):
    """DST as in the paper: micro-batches are tuned to an anchor latency, both ways."""

    kind: Literal["anchor"] = "anchor"
    anchor: Literal["mean", "min", "max"] = "mean"
    """The latency aimed at: mean, min or max of what the micro-batches are predicted to take."""


class WaterfillTuner(BoundedTuner):
    """All budgets of a step together: the least time that loses no coverage in the mean."""

    kind: Literal["waterfill"] = "waterfill"


class AutoTuner(MovingTuner):
    """Tries anchors and bounds in the first steps, then keeps the best by time and coverage."""

    kind: Literal["auto"] = "auto"
    anchors: Annotated[
        tuple[Literal["mean", "min", "max", "optimum"], ...], Field(min_length=1)
    ] = (
        "mean",
        "min",
        "optimum",
    )
    """What is tried: the anchors of `anchor`, and `optimum` for `waterfill`."""
    p_choices: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)] = (
        0.05,
        0.1,
        0.2,
    )
    """Bounds that are tried with each anchor."""
    probe_rounds: PositiveInt = 5
    """Steps given to every pair of an anchor and a bound before the choice, in turns."""
    max_coverage_loss: NonNegativeFloat | None = 0.5
    """Points of coverage_delta that may be lost; the fastest within it is taken. null = the knee
    of the front of time and coverage, where more of one starts to cost too much of the other."""


TunerConfig = Annotated[
    FixedTuner | AnchorTuner | WaterfillTuner | AutoTuner, Field(discriminator="kind")
]


class VariantConfig(Section):
    """One method of the comparison."""

    attention: Literal["sparse", "dense"] = "sparse"
    """sparse: MoBA with the tuner's budgets; dense: full causal attention."""
    balancer: BalancerConfig = RandomBalancer()
    """How a global batch is laid out over ranks and micro-batches."""
    tuner: TunerConfig = FixedTuner()
    """How budgets follow the load."""
    max_sequences: NonNegativeInt = 0
    """Most sequences in a micro-batch; 0 = as many as max_tokens holds, 1 = no packing."""

    @model_validator(mode="after")
    def _dense_has_no_budget(self) -> "VariantConfig":
        if self.attention == "dense" and self.tuner.kind != "fixed":
            raise ValueError(
                f"tuner.kind = {self.tuner.kind}: dense attention has no budget to tune. "
                "use tuner.kind: fixed"
            )
        return self
