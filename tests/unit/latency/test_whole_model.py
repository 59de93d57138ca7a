"""What whole micro-batches add to a table model: a factor, memory, an update, packing's shares."""

from dataclasses import replace

import numpy as np
import pytest

from sbcore.latency.fit import fit_parts
from sbcore.latency.model import TableLatencyModel, fit_table, parts_model
from sbcore.latency.packs import Covered, WorkShares
from sbcore.latency.table import MeasuredPoint

BLOCK_SIZE, NUM_LAYERS, SCALE = 32, 2, 2.0
LENGTHS = (64, 128, 256, 512, 1024)


def point(part: str, length: int, top_k: int, ms: float, **changed: object) -> MeasuredPoint:
    made = MeasuredPoint(part, length, top_k, 1, ms, ms, ms, 3, held_out=False)
    return replace(made, **changed)  # type: ignore[arg-type]


def share(length: int, top_k: int) -> float:
    """One layer's attention to one sequence, its call apart."""
    return 1e-3 * length + 2e-5 * length * min(top_k * BLOCK_SIZE, length)


def alone_ms(length: int, top_k: int) -> float:
    return NUM_LAYERS * share(length, top_k) + 0.01 * length


PARTS = [
    *(
        point("attention", length, top_k, 0.1 + share(length, top_k))
        for length in LENGTHS
        for top_k in sorted({1, 2, length // BLOCK_SIZE})
    ),
    point("attention", 64, 2, 4 * share(64, 2) + 0.1, num_sequences=4),
    *(point("linear", length, 0, 2.0 + 0.01 * length) for length in LENGTHS),
    *(point("dense", n, n // BLOCK_SIZE, 0.1 + 5e-4 * n) for n in LENGTHS),
]
WHOLE = [
    point("floor", 32, 8, 9.0),
    point("optimizer", 0, 0, 1.5),
    *(point("micro_batch", n, 2, SCALE * alone_ms(n, 2) + 7.0) for n in (256, 512, 1024)),
]
MEMORY = [
    point("memory", n, 2, 1.0, recompute=again, peak_gib=(0.1 if again else 1.0) * n / 100)
    for n in (100, 1000)
    for again in (False, True)
]


def model(**changed: object) -> TableLatencyModel:
    found = fit_table(
        [*PARTS, *WHOLE, *MEMORY],
        block_size=BLOCK_SIZE,
        num_layers=NUM_LAYERS,
        device_type="cuda",
        recompute_above=500,
    )
    return replace(found, **changed)  # type: ignore[arg-type]


def test_all_work_takes_the_factor_of_whole_micro_batches() -> None:
    table, lengths, top_k = model(), np.array([256, 1024]), np.array([2, 2])
    assert (table.scale, table.constant_ms, table.update_ms) == pytest.approx((SCALE, 7.0, 1.5))
    assert table.attention_ms(lengths, top_k) == pytest.approx(
        [SCALE * share(n, 2) for n in (256, 1024)]
    )
    assert table.linear_ms(lengths) == pytest.approx(SCALE * 0.01 * lengths)
    assert table.predict(lengths, top_k) == pytest.approx(
        [SCALE * alone_ms(n, 2) for n in (256, 1024)]
    )


def test_dense_attention_saves_by_the_same_factor() -> None:
    lengths, top_k = np.array([256, 512]), np.array([8, 16])
    found = model().covered(lengths, top_k)
    assert found is not None
    saved = [share(n, k) - 5e-4 * n for n, k in ((256, 8), (512, 16))]
    assert found.saving_ms == pytest.approx(SCALE * NUM_LAYERS * np.array(saved))
    assert found.reach.tolist() == [256, 512]


def test_a_pack_holds_what_its_tokens_hold_together_recomputed_above_the_limit() -> None:
    table = model()
    assert table.memory_gib(np.array([200, 300])) == pytest.approx(5.0)
    assert table.memory_gib(np.array([200, 301])) == pytest.approx(0.501)


def test_parts_alone_have_no_floor_and_nothing_is_recomputed() -> None:
    parts = fit_parts(PARTS, block_size=BLOCK_SIZE, num_layers=NUM_LAYERS)
    table = parts_model(parts)
    assert (table.floor_ms, table.scale, table.update_ms) == (0.0, 1.0, 0.0)
    assert table.constant_ms == pytest.approx(2.0 + NUM_LAYERS * 0.1)
    assert table.shares.even


def test_where_prices_are_not_recomputed_long_micro_batches_cost_their_share_more() -> None:
    shares = model(recompute=False, other_share=1.25).shares
    assert shares.of(np.array([500, 501])).tolist() == [1.0, 1.25]
    assert model(recompute=True, other_share=0.75).shares.of(np.array([500, 501])).tolist() == [
        0.75,
        1.0,
    ]


def test_the_least_share_is_that_of_the_cheapest_micro_batch_with_the_sequence() -> None:
    """A short sequence may be packed into a long micro-batch, a long one never into a short."""
    lengths = np.array([500, 501])
    assert WorkShares(500, 0.75, 1.0).least(lengths).tolist() == [0.75, 1.0]
    assert WorkShares(500, 1.25, 1.0).least(lengths).tolist() == [1.0, 1.0]


def test_sequences_may_cost_less_dense_where_budgets_reach_and_that_saves() -> None:
    covered = Covered(np.array([64, 63, 64]), np.array([5.0, 5.0, -5.0]))
    assert covered.least_ms(np.full(3, 20.0), np.full(3, 64)).tolist() == [15.0, 20.0, 20.0]


def test_the_grid_ends_with_its_longest_length_and_its_smallest_budget() -> None:
    points = [p for p in PARTS if p.part != "attention" or p.top_k > 1]
    table = fit_table(
        [*points, *WHOLE],
        block_size=BLOCK_SIZE,
        num_layers=NUM_LAYERS,
        device_type="cuda",
        recompute_above=None,
    )
    lengths, top_k = np.array([1024, 1025, 512, 512]), np.array([2, 2, 2, 1])
    assert table.extrapolates(lengths, top_k).tolist() == [False, True, False, True]
