from fake_trainer import FakeTrainer

from sbcore.ablation.floor import ShortSteps, measure_floor, short_lengths
from sbcore.ablation.ratios import by_variant, paired_speedup
from sbcore.ablation.rounds import order_of, run_rounds
from sbcore.config.load import parse_config
from sbcore.config.stages import plan_stage

NAMES = ["baseline", "sab", "sab_dst"]


def trainers(log, num_rounds=12):
    """The machine's speed doubles half way; `sab` is always 1.25 times as fast."""
    speed = [1.0 if n < num_rounds // 2 else 2.0 for n in range(num_rounds)]
    return {
        "baseline": FakeTrainer("baseline", [100.0 / s for s in speed], log),
        "sab": FakeTrainer("sab", [80.0 / s for s in speed], log),
        "sab_dst": FakeTrainer("sab_dst", [50.0 / s for s in speed], log, coverage_delta=-1.0),
    }


def run(log, numbers=range(12), may_begin=lambda: True, note=lambda _: None):
    rounds = {"num_warmup": 2, "seed": 3, "may_begin": may_begin, "note": note}
    return run_rounds(trainers(log), numbers, **rounds)


def test_every_variant_takes_every_round_once_in_an_order_drawn_anew():
    log = []
    steps = run(log)
    orders = [tuple(name for step, name in log if step == n) for n in range(12)]
    assert all(sorted(order) == NAMES for order in orders)
    assert len(set(orders)) > 2
    assert [step for step, _ in log] == sorted(step for step, _ in log)
    assert sorted((s.round, s.variant) for s in steps) == sorted(log)


def test_the_order_is_a_function_of_seed_and_round():
    assert order_of(NAMES, seed=1, number=4) == order_of(NAMES, seed=1, number=4)
    drawn = {tuple(order_of(NAMES, seed=1, number=n)) for n in range(50)}
    assert len(drawn) == 6


def test_the_last_steps_are_not_lost_and_warm_up_is_left_out():
    steps = run([])
    assert len(steps) == 3 * 12
    assert {s.round for s in steps if not s.measured} == {0, 1}
    assert {len(found) for found in by_variant(steps).values()} == {10}


def test_rounds_can_go_on_behind_an_earlier_start():
    steps = run([], numbers=range(5, 12))
    assert {s.round for s in steps if s.measured} == {7, 8, 9, 10, 11}


def test_no_round_begins_when_the_time_is_up():
    answers = iter([True] * 5 + [False])
    log = []
    steps = run(log, may_begin=lambda: next(answers))
    assert {step for step, _ in log} == set(range(5))
    assert {s.round for s in steps if s.measured} == {2, 3, 4}


def test_steps_are_told_round_by_round():
    told = []
    steps = run([], note=told.append)
    assert [len(new) for new in told] == [0] + [3] * 12
    assert [{step.round for step in new} for new in told[1:]] == [{n} for n in range(12)]
    assert sorted(str(step) for new in told for step in new) == sorted(map(str, steps))


def test_the_ratio_holds_where_the_machine_changes_its_speed():
    found = by_variant(run([]))
    speedup = paired_speedup(found["sab"], found["baseline"])
    assert (speedup.median, speedup.p20, speedup.p80, speedup.num_rounds) == (1.25, 1.25, 1.25, 10)


def test_only_rounds_that_both_have_taken_are_paired():
    found = by_variant(run([]))
    speedup = paired_speedup(found["sab_dst"][3:], found["baseline"][:5])
    assert (speedup.median, speedup.num_rounds) == (2.0, 2)
    assert paired_speedup(found["sab"][:1], found["baseline"][1:]) is None


def test_of_a_part_the_slowest_rank_is_kept_of_computing_and_waiting_the_mean():
    step = run([])[0]
    assert step.compute_ms == 0.7 * step.step_ms
    assert step.waiting_ms == 0.2 * step.step_ms
    assert (step.data_ms, step.plan_ms, step.tune_ms) == (1.0, 0.5, 1.5)
    assert (step.gap_ms, step.optimizer_ms, step.overhead_ms) == (0.1, 2.0, 2.0)


def short_steps(num_ranks):
    values = {"topology": {"num_ranks": num_ranks, "max_tokens": 512}}
    stage = plan_stage(parse_config(values, []), "baseline")
    return ShortSteps(short_lengths(num_ranks, max_tokens=512), stage)


def test_the_floor_is_the_price_of_one_more_micro_batch():
    plan = short_steps(2)
    times = [300.0 + 7.0 * count for count in plan.counts]
    times[:2] = [9000.0] * 2  # compiling
    assert measure_floor(FakeTrainer("floor", times, []), plan) == 7.0


def test_the_floors_steps_use_every_sequence_once():
    plan = short_steps(3)
    for number, count in enumerate(plan.counts):
        step = plan.step(number)
        packs = [pack for rank in step.batch.micro_batches for pack in rank]
        assert [len(rank) for rank in step.batch.micro_batches] == [count] * 3
        assert sorted(i for pack in packs for i in pack) == list(range(3 * count))
        assert set(step.lengths.tolist()) == {512}
