"""What whole micro-batches tell beyond their parts, made from known laws."""

import numpy as np
import pytest

from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.latency.calibrate import calibrate
from sbcore.latency.dense import fit_dense
from sbcore.latency.memory import fit_memory
from sbcore.latency.speed import QUANTUM, SpeedFactors
from sbcore.latency.table import MeasuredPoint

PARTS = AnalyticLatencyModel(32, 4, 0.0, 3.0, 1e-2, np.array([0.0, 1e-3, 2e-5, 0.0]))
FLOOR = MeasuredPoint("floor", 32, 8, 1, 50.0, 50.0, 50.0, 5, held_out=False)


def work(length: int, packed: int) -> float:
    return packed * float(PARTS.predict(np.array([length]), np.array([8]))[0])


def whole(length: int, packed: int, ms: float, **changed: object) -> MeasuredPoint:
    point = MeasuredPoint("micro_batch", length, 8, packed, ms, ms, ms, 5, held_out=False)
    return MeasuredPoint(**{f: getattr(point, f) for f in point.__slots__} | changed)


SHAPES = ((4096, 1), (16384, 1), (2048, 8), (8192, 8), (65536, 1))


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_scale_and_constant_of_a_known_law_are_found(device_type: str) -> None:
    points = [whole(n, m, 1.3 * work(n, m) + 20.0) for n, m in SHAPES]
    floor = MeasuredPoint("floor", 32, 8, 1, *[1.3 * work(32, 1) + 20.0] * 3, 5, held_out=False)
    found = calibrate(
        PARTS, [floor, *points], constant_ms=3.0, recompute=False, device_type=device_type
    )
    assert (found.scale, found.constant_ms) == pytest.approx((1.3, 20.0))
    assert found.floor_ms == pytest.approx(1.3 * work(32, 1) if device_type == "cuda" else 0.0)
    assert found.other_share == 1.0


def test_micro_batches_on_the_floor_of_a_gpu_say_nothing_about_work() -> None:
    points = [whole(n, m, max(work(n, m), 45.0) + 5.0) for n, m in ((64, 1), (256, 1), *SHAPES)]
    found = calibrate(PARTS, [FLOOR, *points], constant_ms=3.0, recompute=False, device_type="cuda")
    assert (found.scale, found.constant_ms, found.floor_ms) == pytest.approx((1.0, 5.0, 45.0))


def test_held_out_micro_batches_are_not_fitted() -> None:
    points = [whole(n, m, 9.9 * work(n, m), held_out=True) for n, m in SHAPES]
    found = calibrate(PARTS, [FLOOR, *points], constant_ms=3.0, recompute=False, device_type="cuda")
    assert (found.scale, found.constant_ms, found.floor_ms) == (1.0, 3.0, 47.0)


def test_micro_batches_that_are_not_recomputed_have_a_share_of_their_own() -> None:
    points = [whole(n, m, work(n, m) + 10.0, recompute=True) for n, m in SHAPES]
    points += [whole(n, 2, 0.75 * work(n, 2) + 10.0, recompute=False) for n in (8192, 16384)]
    found = calibrate(PARTS, [FLOOR, *points], constant_ms=3.0, recompute=True, device_type="cuda")
    assert (found.scale, found.other_share) == pytest.approx((1.0, 0.75))


def weighed(
    tokens: int, gib: float, *, recompute: bool = False, part: str = "memory"
) -> MeasuredPoint:
    return whole(tokens, 1, 1.0, part=part, recompute=recompute, peak_gib=gib)


AGAIN = [weighed(n, 0.5 + 1e-4 * n, recompute=True) for n in (1024, 8192)]


def test_memory_grows_between_its_sizes_and_beyond_and_is_never_below_what_was_measured() -> None:
    kept = [weighed(n, 1.0 + 1e-3 * n + (0.1 if n == 2048 else 0.0)) for n in (1024, 2048, 4096)]
    memory = fit_memory([*kept, *AGAIN], recompute_above=4096)
    assert memory is not None
    assert all(memory.gib(p.length) >= (p.peak_gib or 0.0) - 1e-9 for p in kept)
    assert memory.gib(8192) == pytest.approx(0.5 + 1e-4 * 8192)
    assert memory.gib(16384) == pytest.approx(0.5 + 1e-4 * 16384)
    assert memory.gib(4096) > memory.gib(4097)
    assert fit_memory(kept, recompute_above=None) is None  # one setting alone is half the truth


def test_sums_that_peak_in_turn_are_followed_and_what_gathers_weights_is_left_out() -> None:
    """Few tokens: gradients beside part of the activations; many: all activations."""
    kept = [weighed(n, max(6.0 + 1.6e-3 * n, 1.0 + 2.4e-3 * n)) for n in (1024, 2048, 8192, 16384)]
    first = weighed(256, 16.0, part="floor")
    memory = fit_memory([first, *kept, *AGAIN], recompute_above=None)
    assert memory is not None
    assert memory.kept.gib_per_token == pytest.approx(2.4e-3)
    assert [memory.gib(p.length) for p in kept] == pytest.approx([p.peak_gib for p in kept])
    assert memory.gib(32768) == pytest.approx(1.0 + 2.4e-3 * 32768)
    assert memory.gib(4096) >= max(6.0 + 1.6e-3 * 4096, 1.0 + 2.4e-3 * 4096)


def test_packs_of_nearly_one_size_tell_nothing_of_growth() -> None:
    kept = [weighed(1024, 1.0), weighed(65466, 27.4), weighed(65536, 28.3)]
    memory = fit_memory([*kept, *AGAIN], recompute_above=None)
    assert memory is not None
    assert memory.kept.gib_per_token == pytest.approx(27.3 / (65466 - 1024))
    assert memory.gib(65466) == memory.gib(65536) - 70 * memory.kept.gib_per_token == 28.3


def test_speed_factors_follow_a_slow_rank_in_steps_of_a_32nd() -> None:
    speed = SpeedFactors(3, ema_decay=0.5)
    predicted = np.array([100.0, 100.0, 0.0])
    speed.update(np.array([100.0, 150.0, np.nan]), predicted)
    assert speed.factors.tolist() == [1.0, 1.5, 1.0]  # the third one ran nothing real
    speed.update(np.array([101.0, 100.0, np.nan]), predicted)
    assert speed.factors.tolist() == [1.0, 1.25, 1.0]
    assert (speed.factors % QUANTUM == 0).all()


def test_speed_factors_come_back_from_a_checkpoint_and_only_for_as_many_ranks() -> None:
    speed = SpeedFactors(2, ema_decay=0.9)
    speed.update(np.array([120.0, 80.0]), np.array([100.0, 100.0]))
    again, fewer = SpeedFactors(2, ema_decay=0.9), SpeedFactors(1, ema_decay=0.9)
    again.load_state_dict(speed.state_dict())
    fewer.load_state_dict(speed.state_dict())
    assert again.factors.tolist() == speed.factors.tolist() == [1.1875, 0.8125]
    assert fewer.factors.tolist() == [1.0]
    with pytest.raises(ValueError, match="measured_ms"):
        speed.update(np.ones(3), np.ones(2))


def test_speed_factors_forget_by_the_decay_and_begin_with_the_first_real_time() -> None:
    speed, predicted = SpeedFactors(3, ema_decay=0.75), np.full(3, 100.0)
    speed.update(np.array([200.0, np.nan, 0.0]), predicted)
    assert speed.factors.tolist() == [2.0, 1.0, 1.0]
    speed.update(np.array([100.0, 150.0, 300.0]), predicted)
    assert speed.factors.tolist() == [1.75, 1.5, 3.0]


def test_a_rank_beyond_all_measure_is_not_followed() -> None:
    speed = SpeedFactors(2, ema_decay=0.5)
    speed.update(np.array([1.0, 5000.0]), np.full(2, 100.0))
    assert speed.factors.tolist() == [0.25, 8.0]


def test_a_time_without_end_is_none() -> None:
    speed = SpeedFactors(2, ema_decay=0.5)
    speed.update(np.array([np.inf, 200.0]), np.full(2, 100.0))
    assert speed.factors.tolist() == [1.0, 2.0]


def dense_points(*shares: float) -> list[MeasuredPoint]:
    """Packs of four whose sequences take so much each, beside a call of 0.5 ms."""
    return [whole(1024 * 2**i, 4, 0.5 + 4 * ms, part="dense") for i, ms in enumerate(shares)]


def test_dense_attention_grows_by_powers_between_its_points_and_as_squares_beyond() -> None:
    found = fit_dense(dense_points(1.0, 3.0), call_ms=0.5)
    assert found is not None
    lengths = np.array([1, 1024, 1448, 2048, 4096])
    assert found.milliseconds(lengths) == pytest.approx([1, 1, 3**0.5, 3, 12], rel=1e-3)
    falling = fit_dense(dense_points(4.0, 1.0, 9.0), call_ms=0.5)
    assert falling is not None
    assert falling.milliseconds(np.array([1024, 2048, 4096])) == pytest.approx([2.0, 2.0, 9.0])
    assert fit_dense(dense_points(1.0), call_ms=0.5) is None


@pytest.mark.parametrize(("device_type", "floor_ms"), [("cuda", 2.0), ("cpu", 0.1)])
def test_a_floor_below_what_its_parts_take_leaves_nothing_negative(
    device_type: str, floor_ms: float
) -> None:
    floor = MeasuredPoint("floor", 32, 8, 1, *[floor_ms] * 3, 5, held_out=False)
    found = calibrate(PARTS, [floor], constant_ms=3.0, recompute=False, device_type=device_type)
    assert (found.floor_ms, found.scale) == (0.0, 1.0)
    assert found.constant_ms == (2.0 if device_type == "cuda" else 0.0)


def test_the_setting_that_no_micro_batch_was_run_in_takes_what_its_parts_took() -> None:
    points = [whole(n, m, 1.2 * work(n, m) + 10.0, recompute=True) for n, m in SHAPES]
    found = calibrate(PARTS, [FLOOR, *points], constant_ms=3.0, recompute=False, device_type="cuda")
    assert (found.scale, found.other_share) == pytest.approx((1.0, 1.2), rel=1e-3)
    assert found.constant_ms == pytest.approx(10.0, rel=1e-2)


def test_more_tokens_never_hold_less() -> None:
    kept = [weighed(1024, 5.0), weighed(2048, 4.0), weighed(4096, 7.0)]
    memory = fit_memory([*kept, *AGAIN], recompute_above=None)
    assert memory is not None
    assert [memory.gib(n) for n in (512, 1024, 2048, 4096)] == [5.0, 5.0, 5.0, 7.0]
    assert fit_memory([*kept[:1], *AGAIN], recompute_above=None) is None


def test_recomputation_is_told_from_one_micro_batch_of_each_setting() -> None:
    points = [
        whole(65536, 1, work(65536, 1) + 30.0, recompute=True),
        whole(16384, 1, 0.75 * work(16384, 1) + 30.0),
    ]
    found = calibrate(PARTS, [FLOOR, *points], constant_ms=3.0, recompute=True, device_type="cuda")
    assert (found.scale, found.other_share) == pytest.approx((1.0, 0.75), rel=1e-3)
    assert found.constant_ms == pytest.approx(30.0, rel=0.05)


def test_a_floor_that_grows_does_not_tilt_what_long_micro_batches_take() -> None:
    grown = [whole(n, 1, ms) for n, ms in ((64, 80.0), (256, 110.0))]
    points = [whole(n, m, work(n, m) + 40.0) for n, m in SHAPES if n * m > 10_000]
    found = calibrate(
        PARTS, [FLOOR, *grown, *points], constant_ms=3.0, recompute=False, device_type="cuda"
    )
    assert 50.0 < found.floor_ms + found.constant_ms < 110.0
    assert (found.scale, found.constant_ms) == pytest.approx((1.0, 40.0), rel=0.02)
