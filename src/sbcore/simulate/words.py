"""What stands in options: topologies, barriers, lists of variants."""

from sbcore.config.method import (
    AnchorTuner,
    LengthBalancer,
    RandomBalancer,
    SabBalancer,
    VariantConfig,
    WaterfillTuner,
)
from sbcore.errors import SparseBalanceError, unknown_name
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

_NO_PIPELINE = "the pipeline barrier is not built yet"


def parse_topology(text: str) -> int:
    """Returns the data-parallel ranks of `dp=8`; raises SparseBalanceError for anything else."""
    place = f"--topology = {text}"
    parts = [part.strip().partition("=") for part in text.split(",")]
    if any(axis == "pp" for axis, _, _ in parts):
        raise SparseBalanceError(f"{place}: {_NO_PIPELINE}. leave pp out, as in dp=8.")
    if [axis for axis, _, _ in parts] != ["dp"]:
        raise SparseBalanceError(f"{place}: not a topology of this version. write dp=8.")
    size = parts[0][2]
    if not size.isdecimal() or int(size) < 1:
        raise SparseBalanceError(f"{place}: not a number of ranks above 0. write dp=8.")
    return int(size)


def parse_barrier(text: str) -> Barrier:
    """Returns the barrier of that name; raises SparseBalanceError for another word."""
    if text == "pipeline":
        raise SparseBalanceError(f"--barrier = {text}: {_NO_PIPELINE}. take step or micro.")
    if text not in list(Barrier):
        raise SparseBalanceError(unknown_name("--barrier", text, Barrier))
    return Barrier(text)


def parse_variants(text: str) -> list[str]:
    """Returns the names in `a,b,c`, each once; raises SparseBalanceError for an unknown one."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in VARIANTS:
            raise SparseBalanceError(unknown_name("--variants", name, VARIANTS))
    return names
