"""The worked example: two ranks, three sequences, one layer, and round numbers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbcore.config.method import AnchorTuner, FixedTuner, TunerConfig, WaterfillTuner
from sbcore.tune.coverage import CoverageModel
from sbcore.tune.policy import Observation, make_policy
from sbcore.types import Barrier, BatchPlan, FloatArray, IntArray

NAMES = ("A", "B", "C")
LENGTHS = np.array([16_384, 8_192, 4_096])
RANK = (0, 1, 1)
BATCH = BatchPlan((((0,),), ((1, 2),)))
TOP_K, P = 8, 0.1
LADDER = np.arange(4, 13)
CURVES = np.array(
    [
        [0.86, 0.88, 0.896, 0.905, 0.91, 0.914, 0.917, 0.919, 0.92],
        [0.45, 0.51, 0.56, 0.599, 0.63, 0.66, 0.685, 0.705, 0.72],
        [0.60, 0.66, 0.712, 0.754, 0.78, 0.805, 0.83, 0.85, 0.865],
    ]
)
TUNERS: dict[str, TunerConfig] = {
    "fixed": FixedTuner(),
    "anchor mean": AnchorTuner(p=P),
    "waterfill": WaterfillTuner(p=P),
}


@dataclass(frozen=True)
class BlockTime:
    """One layer in which a block costs 1/8 millisecond per 1,024 tokens, and nothing else does."""

    num_layers: int = 1
    floor_ms: float = 0.0
    constant_ms: float = 0.0

    def attention_ms(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        """Returns the time of one layer."""
        return lengths * top_k / 8192.0

    def linear_ms(self, lengths: IntArray) -> FloatArray:
        """Returns nothing."""
        return np.zeros(lengths.shape)

    def predict(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        """Returns the time of each sequence."""
        return self.attention_ms(lengths, np.atleast_2d(top_k)).sum(axis=0)

    def extrapolates(self, lengths: IntArray, top_k: IntArray) -> NDArray[np.bool_]:
        """Returns False everywhere."""
        return np.zeros(np.broadcast_shapes(lengths.shape, top_k.shape), dtype=np.bool_)


def observation() -> Observation:
    """Returns the step of the example; its sequences are in different length buckets."""
    empty = CoverageModel.empty(LADDER, num_layers=1, block_size=256, ema_decay=0.9)
    shown = empty.updated(LENGTHS, CURVES[None])
    return Observation(LENGTHS, BATCH, Barrier.STEP, BlockTime(), shown, TOP_K)


def curves() -> str:
    """Returns what is known before the step, as a table."""
    head = ["sequence", "rank", "tokens", "ms per block"] + [f"C({k})" for k in LADDER]
    lines = [head, ["---"] * len(head)]
    for i, name in enumerate(NAMES):
        known = [name, f"{RANK[i]}", f"{LENGTHS[i]:,}", f"{LENGTHS[i] / 8192:.1f}"]
        lines.append(known + [f"{coverage:.3f}" for coverage in CURVES[i]])
    return _markdown(lines)


def results() -> str:
    """Returns what the policies decide, as a table."""
    head = ["tuner", *(f"top_k of {name}" for name in NAMES), "rank 0, ms", "rank 1, ms"]
    lines = [[*head, "step, ms", "coverage_delta"], ["---"] * (len(head) + 2)]
    for name, tuner in TUNERS.items():
        top_k = make_policy(tuner).decide(observation())[0]
        ranks = rank_ms(top_k)
        times = [f"{ms:.1f}" for ms in (*ranks, ranks.max())]
        lines.append([name, *map(str, top_k), *times, f"{coverage_delta(top_k):+.2f}"])
    return _markdown(lines)


def raises() -> str:
    """Returns the raises in the order in which a rising step pays for them, as a table.

    One layer and concave curves: the next raise of a rank is its best one by coverage per ms.
    """
    top_k = cheapest()
    lines = [
        ["raise", "of rank", "ms", "points", "points per ms", "rank then, ms", "coverage_delta"]
    ]
    lines += [
        ["---"] * 7,
        ["cheapest within p", "", "", "", "", "", f"{coverage_delta(top_k):+.2f}"],
    ]
    while coverage_delta(top_k) < 0:
        options = [best_raise(top_k, rank) for rank in (0, 1)]
        i = min(options, key=lambda i: rank_ms(top_k + (np.arange(3) == i))[RANK[i]])
        ms, points = LENGTHS[i] / 8192, 100 * float(gain(i, top_k[i]))
        text = f"{NAMES[i]}: {top_k[i]} to {top_k[i] + 1}"
        top_k[i] += 1
        then = [f"{rank_ms(top_k)[RANK[i]]:.1f}", f"{coverage_delta(top_k):+.2f}"]
        lines.append(
            [text, f"{RANK[i]}", f"{ms:.1f}", f"{points:.2f}", f"{points / ms:.2f}", *then]
        )
    return _markdown(lines)


def bars() -> str:
    """Returns the ranks' times as a picture in text."""
    lines = ["```text"]
    for name, tuner in TUNERS.items():
        times = rank_ms(make_policy(tuner).decide(observation())[0])
        for rank, ms in enumerate(times):
            bar = "#" * round(2 * ms) + "." * round(2 * (times.max() - ms))
            lines.append(f"{name if rank == 0 else '':12} rank {rank}  {bar} {ms:.1f} ms")
    return "\n".join([*lines, "```"])


def cheapest() -> IntArray:
    """Returns the smallest budgets that lose at most p, [N]."""
    lost = CURVES[:, [TOP_K - LADDER[0]]] - CURVES
    return LADDER[np.argmax(lost <= P, axis=1)]


def gain(i: int, top_k: int) -> float:
    """Returns what one block more for sequence i adds to coverage_delta, as a share."""
    curve = CURVES[i, top_k - LADDER[0] :]
    return float((curve[1] - curve[0]) * LENGTHS[i] / LENGTHS.sum())


def best_raise(top_k: IntArray, rank: int) -> int:
    """Returns the sequence of this rank whose next block brings most per millisecond."""
    own = [i for i in range(3) if RANK[i] == rank]
    return max(own, key=lambda i: gain(i, top_k[i]) / LENGTHS[i])


def rank_ms(top_k: IntArray) -> FloatArray:
    """Returns the time of both ranks."""
    times = BlockTime().predict(LENGTHS, top_k)
    return np.array([times[0], times[1] + times[2]])


def coverage_delta(top_k: IntArray) -> float:
    """Returns the token-weighted mean of C(top_k) - C(k0), points; between rungs linear in k."""
    pairs = zip(top_k, CURVES, strict=True)
    change = [np.interp(k, LADDER, curve) - curve[TOP_K - LADDER[0]] for k, curve in pairs]
    return 100 * float(np.average(change, weights=LENGTHS))


def _markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
