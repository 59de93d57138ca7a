"""Variants replayed on the same global batches and set against the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

from sbcore.plan.simulate import Method, Plans, Replay, replay
from sbcore.simulate.setting import Setting
from sbcore.simulate.tuning import make_tuning
from sbcore.simulate.words import BASELINE, VARIANTS


@dataclass(frozen=True, slots=True)
class VariantResult:
    """What a variant would bring, as predicted."""

    variant: str
    speedup: float
    """Baseline's time of all steps over this one's."""
    imbalance: float
    """Mean over steps."""
    gap: float
    """Time of all steps above their lower bounds at the budgets used, as a share of those."""
    coverage_delta: float
    """Points, by the law."""
    bubble: float
    """Share of rank time spent waiting, 0..1."""


def simulate(setting: Setting, names: Sequence[str]) -> list[VariantResult]:
    """Returns a result per variant, in the order of the names.

    Raises:
        SparseBalanceError: As `Setting.check`.
    """
    setting.check()
    plans = Plans()
    baseline = replay_variant(setting, BASELINE, plans)[0]
    results = []
    for name in names:
        steps, coverage_delta = replay_variant(setting, name, plans)
        results.append(
            VariantResult(
                variant=name,
                speedup=steps.speedup_over(baseline),
                imbalance=float(steps.imbalance.mean()),
                gap=steps.optimality_gap,
                coverage_delta=coverage_delta,
                bubble=steps.bubble,
            )
        )
    return results


def replay_variant(setting: Setting, name: str, plans: Plans | None = None) -> tuple[Replay, float]:
    """Returns a variant's steps and its coverage_delta, points; plans are the setting's."""
    variant = VARIANTS[name]
    dense = variant.attention == "dense"
    scene = setting.scene(top_k=setting.num_blocks if dense else setting.config.top_k)
    if variant.tuner.kind == "fixed" and not dense:
        fixed = Method(variant.balancer, variant.max_sequences, decide=None)
        return replay(scene, fixed, plans), 0.0
    tuning = make_tuning(setting, variant.tuner, dense=dense)
    tuned = Method(variant.balancer, variant.max_sequences, decide=tuning)
    steps = replay(scene, tuned, plans)
    return steps, tuning.coverage_delta
