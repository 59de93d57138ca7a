"""What stands in options: topologies, barriers, slow ranks, lists of variants."""

from sbcore.config.method import (
    AnchorTuner,
    LengthBalancer,
    RandomBalancer,
    SabBalancer,
    VariantConfig,
    WaterfillTuner,
)
from sbcore.errors import SparseBalanceError, unknown_name
from sbcore.plan.speed import quantised
from sbcore.types import Barrier

BASELINE = "baseline"

VARIANTS = {
    "dense": VariantConfig(attention="dense", balancer=LengthBalancer()),
    BASELINE: VariantConfig(balancer=RandomBalancer(), max_sequences=1),
    "baseline_packed": VariantConfig(balancer=RandomBalancer()),
    "lbb": VariantConfig(balancer=LengthBalancer()),
    "sab": VariantConfig(balancer=SabBalancer()),
    "dst": VariantConfig(balancer=RandomBalancer(), tuner=AnchorTuner()),
    "lbb_dst": VariantConfig(balancer=LengthBalancer(), tuner=AnchorTuner()),
    "sab_dst": VariantConfig(balancer=SabBalancer(), tuner=AnchorTuner()),
    "sab_waterfill": VariantConfig(balancer=SabBalancer(), tuner=WaterfillTuner()),
}
"""The named variants, as in config/paper.yaml."""

_LEAST_FACTOR, _MOST_FACTOR = 0.25, 8.0


def parse_topology(text: str) -> tuple[int, int]:
    """Returns ranks and stages of `dp=8` or `dp=8,pp=4`; raises SparseBalanceError for others."""
    place = f"--topology = {text}"
    parts = [part.strip().partition("=") for part in text.split(",")]
    axes = [axis for axis, _, _ in parts]
    if sorted(axes) not in (["dp"], ["dp", "pp"]):
        raise SparseBalanceError(f"{place}: not a topology. write dp=8 or dp=8,pp=4.")
    sizes = {axis: size for axis, _, size in parts}
    for axis, size in sizes.items():
        if not size.isdecimal() or int(size) < 1:
            what = "ranks" if axis == "dp" else "stages"
            raise SparseBalanceError(f"{place}: not a number of {what} above 0. write {axis}=8.")
    return int(sizes["dp"]), int(sizes.get("pp", "1"))


def parse_barrier(text: str) -> Barrier:
    """Returns the barrier of that name; raises SparseBalanceError for another word."""
    if text not in list(Barrier):
        raise SparseBalanceError(unknown_name("--barrier", text, Barrier))
    return Barrier(text)


def parse_slow_ranks(text: str | None, num_ranks: int) -> tuple[float, ...]:
    """Returns the speed factors of `3=1.5,0=1.25`, [R], none for no text; 1.5 = half slower.

    Raises SparseBalanceError for anything else.
    """
    if text is None:
        return ()
    factors = [1.0] * num_ranks
    for part in text.split(","):
        rank, _, factor = part.strip().partition("=")
        try:
            at, value = int(rank), float(factor)
        except ValueError:
            at, value = -1, 0.0
        if not (0 <= at < num_ranks and _LEAST_FACTOR <= value <= _MOST_FACTOR):
            raise SparseBalanceError(
                f"--slow-ranks = {text}: {part.strip() or 'nothing'}: not a rank below {num_ranks} "
                f"and its time over the predicted one, {_LEAST_FACTOR:g} to {_MOST_FACTOR:g}. "
                "write 3=1.5."
            )
        factors[at] = value
    return quantised(factors)


def parse_variants(text: str) -> list[str]:
    """Returns the names in `a,b,c`, each once; raises SparseBalanceError for an unknown one."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in VARIANTS:
            raise SparseBalanceError(unknown_name("--variants", name, VARIANTS))
    return names
