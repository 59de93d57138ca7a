"""Tuning policies compared on simulated steps: no GPU, no training, and no measured number.

Lengths are heavy-tailed; the routing mass of a query's j-th best block falls like j^-alpha, with
alpha different by layer and sequence; time is a formula of about the shape of a 0.5B model on one
H100. The policies see what they would see in training: moving averages of curves by layer and
length bucket, learned from earlier steps. Takes about 2 seconds.
"""

from dataclasses import dataclass

import numpy as np

from sbcore.config.method import (
    AnchorTuner,
    BalancerConfig,
    FixedTuner,
    RandomBalancer,
    SabBalancer,
    TunerConfig,
    WaterfillTuner,
)
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.plan.balancers import load_balancer
from sbcore.plan.cost import BudgetCost
from sbcore.plan.objective import imbalance, step_ms
from sbcore.tune.coverage import CoverageModel
from sbcore.tune.ladder import make_ladder
from sbcore.tune.policy import Observation, make_policy
from sbcore.types import Barrier, FloatArray, IntArray, Topology

SEED = 0
BLOCK_SIZE, TOP_K, LONGEST = 256, 32, 65_536
NUM_LAYERS = 24
NUM_LEARNING_STEPS, NUM_STEPS = 10, 20
LADDER = make_ladder(LONGEST // BLOCK_SIZE, TOP_K)
LATENCY = AnalyticLatencyModel(
    block_size=BLOCK_SIZE,
    num_layers=NUM_LAYERS,
    floor_ms=150.0,
    constant_ms=0.0,
    ms_per_token=0.01,
    coefficients=np.array([0.05, 1e-5, 7e-8, 1e-6]),
)
BALANCERS: dict[str, BalancerConfig] = {"random": RandomBalancer(), "sab": SabBalancer()}
TUNERS: dict[str, TunerConfig] = {
    "fixed": FixedTuner(),
    "anchor mean": AnchorTuner(anchor="mean", p=0.1),
    "waterfill": WaterfillTuner(p=0.1),
}


@dataclass(frozen=True)
class Setting:
    """One situation of the table."""

    barrier: Barrier
    balancer: str
    num_ranks: int
    global_batch: int


SETTINGS = [
    Setting(Barrier.STEP, "random", 4, 16),
    Setting(Barrier.STEP, "sab", 2, 16),
    Setting(Barrier.STEP, "sab", 4, 16),
    Setting(Barrier.STEP, "sab", 8, 16),
    Setting(Barrier.STEP, "sab", 8, 64),
    Setting(Barrier.MICRO, "sab", 2, 16),
    Setting(Barrier.MICRO, "sab", 4, 16),
    Setting(Barrier.MICRO, "sab", 8, 64),
]


def table() -> str:
    """Returns the comparison as a Markdown table; times are means over steps."""
    head = [
        "barrier",
        "balancer",
        "ranks",
        "global batch",
        "tuner",
        "step, ms",
        "speedup",
        "imbalance",
    ]
    head += ["coverage_delta expected", "coverage_delta", "worst layer"]
    lines = [head, ["---"] * len(head)]
    for setting in SETTINGS:
        means = {name: np.mean(rows, axis=0) for name, rows in simulate(setting).items()}
        for name, (ms, uneven, *changes) in means.items():
            where = [setting.barrier, setting.balancer, f"{setting.num_ranks}"]
            where.append(f"{setting.global_batch}")
            speed = [f"{ms:.0f}", f"{means['fixed'][0] / ms:.3f}", f"{uneven:.3f}"]
            # Adding zero turns a rounded -0.0 into 0.0.
            lines.append(
                [*where, name, *speed, *(f"{round(100 * x, 1) + 0.0:+.1f}" for x in changes)]
            )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def simulate(setting: Setting) -> dict[str, list[FloatArray]]:
    """Returns by tuner a row of each step: ms, imbalance, and three changes of coverage.

    Expected by the averages; of the sequences' own curves; and the latter's worst layer.
    """
    rng = np.random.default_rng(SEED)
    layer_alpha = rng.normal(1.0, 0.25, size=(NUM_LAYERS, 1))
    shown = CoverageModel.empty(LADDER, num_layers=NUM_LAYERS, block_size=BLOCK_SIZE, ema_decay=0.9)
    rows: dict[str, list[FloatArray]] = {name: [] for name in TUNERS}
    for step in range(NUM_LEARNING_STEPS + NUM_STEPS):
        lengths = draw_lengths(rng, setting.global_batch)
        curves = power_law_curves(lengths, layer_alpha + rng.normal(0.0, 0.15, len(lengths)))
        if step >= NUM_LEARNING_STEPS:
            observation = observe(setting, lengths, shown.beyond(TOP_K))
            for name, tuner in TUNERS.items():
                rows[name].append(
                    outcome(observation, make_policy(tuner).decide(observation), curves)
                )
        shown = shown.updated(lengths, curves)
    return rows


def draw_lengths(rng: np.random.Generator, num_sequences: int) -> IntArray:
    """Returns lognormal lengths with a median of 12,000 tokens; 6 % are cut to the longest."""
    lengths = np.exp(rng.normal(np.log(12_000), 1.1, num_sequences))
    return np.clip(lengths, 512, LONGEST).astype(np.int64)


def power_law_curves(lengths: IntArray, alpha: FloatArray) -> FloatArray:
    """Returns C(k) of routing mass j^-alpha on the blocks that are there, [L, N, K]."""
    block = np.arange(1, LADDER[-1] + 1)
    num_blocks = -(-lengths // BLOCK_SIZE)
    mass = np.where(block <= num_blocks[:, None], block ** -alpha[..., None], 0.0)
    coverage = np.cumsum(mass, axis=-1)
    curves: FloatArray = coverage[..., LADDER - 1] / coverage[..., -1:]
    return curves


def observe(setting: Setting, lengths: IntArray, shown: CoverageModel) -> Observation:
    """Returns the step as policies see it, balanced at k0."""
    topology = Topology(setting.num_ranks, setting.barrier, max_tokens=LONGEST, max_sequences=0)
    cost = BudgetCost(LATENCY, TOP_K)
    plan, config = load_balancer(setting.balancer), BALANCERS[setting.balancer]
    batch = plan(lengths, topology, cost=cost, seed=SEED, config=config)
    return Observation(lengths, batch, setting.barrier, LATENCY, shown, TOP_K)


def outcome(observation: Observation, top_k: IntArray, curves: FloatArray) -> FloatArray:
    """Returns one row of `simulate`."""
    times = LATENCY.predict(observation.lengths, top_k)
    packs = [[times[list(p)].sum() for p in rank] for rank in observation.batch.micro_batches]
    micro_batch_ms = np.maximum(np.array(packs), LATENCY.floor_ms)
    expected = mean_change(observation.coverage.expected(observation.lengths), top_k, observation)
    real = mean_change(curves, top_k, observation)
    return np.array(
        [
            step_ms(micro_batch_ms, observation.barrier),
            imbalance(micro_batch_ms, observation.barrier),
            expected.mean(),
            real.mean(),
            real.min(),
        ]
    )


def mean_change(curves: FloatArray, top_k: IntArray, observation: Observation) -> FloatArray:
    """Returns the token-weighted mean of C(top_k) - C(k0) of each layer, [L]; unknown is 0."""
    rung = np.searchsorted(LADDER, top_k)[..., None]
    base = curves[..., np.searchsorted(LADDER, TOP_K)]
    change = np.nan_to_num(np.take_along_axis(curves, rung, axis=-1)[..., 0] - base)
    return np.average(change, axis=1, weights=observation.lengths)
